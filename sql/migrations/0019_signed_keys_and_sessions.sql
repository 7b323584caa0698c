-- A key is either a secret, of which its SHA-256 is stored, or an ed25519 key pair, of which its holder keeps one half.

ALTER TABLE api_keys
    ALTER COLUMN secret_sha256 DROP NOT NULL,
    ADD COLUMN public_key bytea,
    ADD COLUMN previous_public_key bytea,
    DROP CONSTRAINT api_keys_previous,
    ADD CONSTRAINT api_keys_kind CHECK ((secret_sha256 IS NULL) <> (public_key IS NULL)),
    ADD CONSTRAINT api_keys_public_key_length CHECK (octet_length(public_key) = 32),
    ADD CONSTRAINT api_keys_previous CHECK (
        (previous_public_id IS NULL) = (previous_until_us IS NULL)
        AND (previous_public_id IS NULL) = (previous_secret_sha256 IS NULL AND previous_public_key IS NULL)
        AND (previous_secret_sha256 IS NULL OR (secret_sha256 IS NOT NULL AND octet_length(previous_secret_sha256) = 32))
        AND (previous_public_key IS NULL OR (public_key IS NOT NULL AND octet_length(previous_public_key) = 32)));
