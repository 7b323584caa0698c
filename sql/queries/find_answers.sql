-- The answers that were given under these keys.
SELECT k.* FROM idempotency_keys k
JOIN unnest($1::text[], $2::text[]) AS w(account, key) USING (account, key)
