-- Markets and accounts have a version, which whoever changes their settings names (If-Match). It counts what an
-- operator changed, not what the auction does with them.

ALTER TABLE markets ADD COLUMN version bigint NOT NULL DEFAULT 1, ADD CONSTRAINT markets_version CHECK (version > 0);
ALTER TABLE accounts ADD COLUMN version bigint NOT NULL DEFAULT 1, ADD CONSTRAINT accounts_version CHECK (version > 0);

-- A replay of the journal counts the changes of the past too, so the rows have to. A command is a msgpack map that
-- starts with its tag and then names what it changes; as bytes that is one prefix for each kind and id.
CREATE FUNCTION msgpack_text(value text) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN octet_length(value) < 32 THEN decode(to_hex(160 + octet_length(value)), 'hex')
                ELSE '\xd9'::bytea || decode(lpad(to_hex(octet_length(value)), 2, '0'), 'hex') END
        || convert_to(value, 'UTF8')
$$;

CREATE TEMPORARY TABLE past_changes ON COMMIT DROP AS
    SELECT substr(payload, 2, 256) AS start FROM journal
    WHERE substr(payload, 8, 12) = 'AmendAccount'::bytea OR substr(payload, 8, 14) = 'SetAffiliation'::bytea
        OR substr(payload, 8, 15) IN ('SetMarketTiming'::bytea, 'SetMarketStatus'::bytea, 'SetAccountState'::bytea);

UPDATE markets SET version = 1 + (
    SELECT count(*) FROM past_changes,
        LATERAL (SELECT msgpack_text('type') || msgpack_text(tag) || msgpack_text('market') || msgpack_text(markets.id) AS start
            FROM unnest(ARRAY['SetMarketTiming', 'SetMarketStatus']) AS tag) AS own
    WHERE substr(past_changes.start, 1, length(own.start)) = own.start)
WHERE EXISTS (SELECT FROM past_changes);
UPDATE accounts SET version = 1 + (
    SELECT count(*) FROM past_changes,
        LATERAL (SELECT msgpack_text('type') || msgpack_text(tag) || msgpack_text('account') || msgpack_text(accounts.id) AS start
            FROM unnest(ARRAY['AmendAccount', 'SetAffiliation', 'SetAccountState']) AS tag) AS own
    WHERE substr(past_changes.start, 1, length(own.start)) = own.start)
WHERE EXISTS (SELECT FROM past_changes);

DROP FUNCTION msgpack_text;

-- The audit log says of a setting what it was before, too. What was written without is hashed as it always was.
ALTER TABLE audit_log ADD COLUMN before text;  -- JSON
CREATE OR REPLACE FUNCTION audit_hash(entry audit_log) RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path = pg_catalog, public, pg_temp
    RETURN sha256((entry).previous_hash || convert_to((
        SELECT string_agg(coalesce(octet_length(convert_to(f, 'UTF8')) || ':' || f, '-') || ',', '' ORDER BY n)
        FROM unnest(ARRAY[(entry).id::text, (entry).at_us::text, (entry).account, (entry).key, (entry).scope,
            (entry).address, (entry).request_id, (entry).method, (entry).path, encode((entry).request_sha256, 'hex'),
            (entry).request, (entry).status::text, (entry).subject, (entry).answer]
            || CASE WHEN (entry).before IS NULL THEN '{}'::text[] ELSE ARRAY[(entry).before] END)
            WITH ORDINALITY AS fields(f, n)
    ), 'UTF8'));
