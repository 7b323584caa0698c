-- A signing key: its holder signs requests, and only the public half is here. Its secret was thrown away.

ALTER TABLE api_keys
    ADD COLUMN public_key bytea,
    ADD CONSTRAINT api_keys_public_key CHECK (octet_length(public_key) = 32);
