-- Keep the answers given under an idempotency key; one that a webhook request took first stays its own.
INSERT INTO idempotency_keys (account, key, request_hash, status, content_type, body, created_at_us)
SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::smallint[], $5::text[], $6::bytea[], $7::bigint[])
ON CONFLICT DO NOTHING
