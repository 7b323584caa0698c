-- The answers that were given under these keys.
-- LATERAL with LIMIT keeps it a look into the index for each: a join is planned when the table is small, and
-- a plan that reads all of it would stay with the connection while the table grows.
SELECT k.* FROM unnest($1::text[], $2::text[]) AS w(account, key) CROSS JOIN LATERAL
    (SELECT * FROM idempotency_keys i WHERE i.account = w.account AND i.key = w.key LIMIT 1) k
