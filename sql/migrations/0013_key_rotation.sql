-- A key keeps its id, limits and bids when its secret is rotated; the one before is valid for a while.
-- A key may be bound to networks.

ALTER TABLE api_keys
    ADD COLUMN previous_public_id text,
    ADD COLUMN previous_secret_sha256 bytea,
    ADD COLUMN previous_until_us bigint,
    ADD COLUMN allowed_networks text[] NOT NULL DEFAULT '{}',
    ADD CONSTRAINT api_keys_previous CHECK (
        (previous_public_id IS NULL) = (previous_secret_sha256 IS NULL)
        AND (previous_public_id IS NULL) = (previous_until_us IS NULL)
        AND octet_length(previous_secret_sha256) = 32),
    ADD CONSTRAINT api_keys_networks CHECK (cardinality(allowed_networks) <= 16);
CREATE UNIQUE INDEX api_keys_previous_public_id ON api_keys (previous_public_id);
