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

-- A browser that has signed in with a key, and may do what the key may. The cookie holds the token, this its SHA-256.
CREATE TABLE sessions (
    id              text PRIMARY KEY,
    account         text NOT NULL REFERENCES accounts,
    key             text NOT NULL REFERENCES api_keys,
    public_id       text NOT NULL,  -- that the key had then: its rotation ends the session
    token_sha256    bytea NOT NULL,
    address         text NOT NULL,
    created_at_us   bigint NOT NULL,
    expires_at_us   bigint NOT NULL,
    last_used_at_us bigint NOT NULL,  -- to the minute
    CONSTRAINT sessions_token_unique UNIQUE (token_sha256),
    CONSTRAINT sessions_token_length CHECK (octet_length(token_sha256) = 32)
);
CREATE INDEX sessions_by_account ON sessions (account, id);

-- A link that signs a browser in, once; its row goes when it is used.
CREATE TABLE sign_in_links (
    id              text PRIMARY KEY,
    account         text NOT NULL REFERENCES accounts,
    key             text NOT NULL REFERENCES api_keys,
    public_id       text NOT NULL,
    token_sha256    bytea NOT NULL,
    expires_at_us   bigint NOT NULL,
    CONSTRAINT sign_in_links_token_unique UNIQUE (token_sha256),
    CONSTRAINT sign_in_links_token_length CHECK (octet_length(token_sha256) = 32)
);
CREATE INDEX sign_in_links_by_account ON sign_in_links (account, id);

GRANT SELECT ON sessions, sign_in_links TO fallow_engine, fallow_auditor, fallow_api;
GRANT INSERT, DELETE ON sessions, sign_in_links TO fallow_api;
GRANT DELETE ON sessions, sign_in_links TO fallow_engine;
GRANT UPDATE ON sessions TO fallow_engine;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['sessions', 'sign_in_links'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY everybody ON %I TO fallow_engine USING (true) WITH CHECK (true)', name);
        EXECUTE format('CREATE POLICY auditor ON %I FOR SELECT TO fallow_auditor USING (true)', name);
        EXECUTE format('CREATE POLICY tenant ON %I TO fallow_api USING (account = tenant()) WITH CHECK (account = tenant())',
            name);
    END LOOP;
END $$;
