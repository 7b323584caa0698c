-- Who changed what outside the auction's own flow: keys, limits, webhooks, money, nodes, offers, markets, accounts.
-- A row is numbered and chained to the one before it as it is written, under a lock that is held until its
-- transaction ends: a row that was changed, left out or put in breaks every hash behind it; `fallow audit` computes them again.
CREATE TABLE audit_log (
    id             bigint PRIMARY KEY,
    at_us          bigint NOT NULL,
    account        text NOT NULL REFERENCES accounts,
    key            text NOT NULL,
    scope          text NOT NULL,
    address        text NOT NULL,
    request_id     text NOT NULL,
    method         text NOT NULL,
    path           text NOT NULL,
    request_sha256 bytea NOT NULL,
    request        text,  -- JSON; NULL when it was long
    status         smallint NOT NULL,
    subject        text,  -- the id of what it made or changed
    answer         text,  -- JSON without secrets; NULL when it was long
    previous_hash  bytea NOT NULL,
    hash           bytea NOT NULL,
    CONSTRAINT audit_log_hash_lengths CHECK (octet_length(request_sha256) = 32 AND octet_length(previous_hash) = 32
        AND octet_length(hash) = 32)
);
CREATE INDEX audit_log_by_account ON audit_log (account, id);

-- Each field with its length, so that no two rows read alike: "3:abc,"; a field that is NULL is "-,".
CREATE FUNCTION audit_hash(entry audit_log) RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, public, pg_temp
    RETURN sha256((entry).previous_hash || convert_to((
        SELECT string_agg(coalesce(octet_length(convert_to(f, 'UTF8')) || ':' || f, '-') || ',', '' ORDER BY n)
        FROM unnest(ARRAY[(entry).id::text, (entry).at_us::text, (entry).account, (entry).key, (entry).scope,
            (entry).address, (entry).request_id, (entry).method, (entry).path, encode((entry).request_sha256, 'hex'),
            (entry).request, (entry).status::text, (entry).subject, (entry).answer]) WITH ORDINALITY AS fields(f, n)
    ), 'UTF8'));

CREATE FUNCTION chain_audit_log() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    last audit_log;
BEGIN
    PERFORM pg_advisory_xact_lock(1020178, 0);
    SELECT * INTO last FROM audit_log ORDER BY id DESC LIMIT 1;
    NEW.id := coalesce(last.id, 0) + 1;
    NEW.previous_hash := coalesce(last.hash, sha256('fallow audit log'));
    NEW.hash := audit_hash(NEW);
    RETURN NEW;
END $$;
CREATE TRIGGER audit_log_chained BEFORE INSERT ON audit_log FOR EACH ROW EXECUTE FUNCTION chain_audit_log();
CREATE TRIGGER audit_log_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

GRANT SELECT ON audit_log TO fallow_engine, fallow_auditor, fallow_api;
GRANT INSERT ON audit_log TO fallow_engine, fallow_api;
ALTER TABLE audit_log ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody ON audit_log TO fallow_engine USING (true) WITH CHECK (true);
CREATE POLICY auditor ON audit_log FOR SELECT TO fallow_auditor USING (true);
CREATE POLICY tenant ON audit_log TO fallow_api USING (account = tenant()) WITH CHECK (account = tenant());
