-- Who may do what in the database, beside what the code allows. Three roles without a login, for whoever
-- connects to take on: whoever migrates is a member of all three and owns the tables.
--
--   fallow_api      a tenant's requests: its own rows (fallow.account says whose), the public ones, no others
--   fallow_engine   the engine and the workers: every tenant's rows; what is append-only stays so
--   fallow_auditor  reads everything, changes nothing

DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['fallow_api', 'fallow_engine', 'fallow_auditor'] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL; -- roles are the whole server's: another database of it has made them
        END;
        IF NOT pg_has_role(current_user, role, 'MEMBER') THEN
            BEGIN
                EXECUTE format('GRANT %I TO CURRENT_USER', role);
            EXCEPTION WHEN insufficient_privilege THEN
                RAISE EXCEPTION 'the role % is another login''s: its administrator must run GRANT % TO %',
                    role, role, current_user USING ERRCODE = 'insufficient_privilege';
            END;
        END IF;
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', current_schema(), role);
    END LOOP;
END $$;

GRANT SELECT ON ALL TABLES IN SCHEMA public TO fallow_engine, fallow_auditor;
GRANT INSERT, UPDATE ON shards, accounts, api_keys, markets, nodes, offers, bids, leases, gpu_slots, notices, payouts,
    limits, targets, snapshots, idempotency_keys, ledger_balances, webhook_endpoints, webhook_deliveries, webhook_outbox
    TO fallow_engine;
GRANT INSERT ON workloads, ticks, journal, events, transfers, usage TO fallow_engine;
GRANT DELETE ON gpu_slots, idempotency_keys, snapshots, webhook_endpoints, webhook_deliveries TO fallow_engine;

GRANT SELECT ON accounts, api_keys, markets, nodes, offers, bids, leases, gpu_slots, notices, ticks, payouts, limits,
    targets, workloads, idempotency_keys, events, ledger_balances, transfers, usage, webhook_endpoints,
    webhook_deliveries TO fallow_api;
GRANT INSERT, UPDATE ON targets, webhook_endpoints, webhook_deliveries TO fallow_api;
GRANT INSERT ON idempotency_keys TO fallow_api;

-- Whose request it is; NULL or empty is nobody's, who sees what is public.
CREATE FUNCTION tenant() RETURNS text LANGUAGE sql STABLE PARALLEL SAFE
    RETURN nullif(current_setting('fallow.account', true), '');

-- The first transfer at or after an instant, whoever's it is: where in the one order of ids a time begins.
CREATE FUNCTION first_transfer_at(instant_us bigint) RETURNS bigint LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, public, pg_temp
    AS 'SELECT coalesce((SELECT id FROM transfers WHERE at_us >= instant_us ORDER BY at_us, id LIMIT 1), 1::bigint << 62)';
REVOKE ALL ON FUNCTION first_transfer_at FROM PUBLIC;
GRANT EXECUTE ON FUNCTION first_transfer_at TO fallow_api, fallow_engine, fallow_auditor;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['accounts', 'api_keys', 'nodes', 'offers', 'bids', 'leases', 'gpu_slots', 'notices',
        'payouts', 'limits', 'targets', 'workloads', 'idempotency_keys', 'events', 'ledger_balances', 'transfers',
        'usage', 'webhook_endpoints', 'webhook_deliveries'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY', name);
        EXECUTE format('CREATE POLICY everybody ON %I TO fallow_engine USING (true) WITH CHECK (true)', name);
        EXECUTE format('CREATE POLICY auditor ON %I FOR SELECT TO fallow_auditor USING (true)', name);
    END LOOP;
    FOREACH name IN ARRAY ARRAY['api_keys', 'nodes', 'offers', 'bids', 'payouts', 'limits', 'targets', 'workloads',
        'idempotency_keys', 'webhook_endpoints'] LOOP
        EXECUTE format('CREATE POLICY tenant ON %I TO fallow_api USING (account = tenant()) WITH CHECK (account = tenant())',
            name);
    END LOOP;
END $$;

CREATE POLICY tenant ON accounts TO fallow_api USING (id = tenant());
CREATE POLICY tenant ON leases TO fallow_api USING (account = tenant() OR owner = tenant());
CREATE POLICY tenant ON gpu_slots TO fallow_api USING (EXISTS (SELECT FROM leases l WHERE l.id = lease));
CREATE POLICY tenant ON notices TO fallow_api
    USING (account = tenant() OR EXISTS (SELECT FROM leases l WHERE l.id = lease AND l.owner = tenant()));
CREATE POLICY tenant ON usage TO fallow_api USING (EXISTS (SELECT FROM leases l WHERE l.id = lease));
CREATE POLICY tenant ON events TO fallow_api USING (account = tenant() OR account IS NULL);
CREATE POLICY tenant ON ledger_balances TO fallow_api
    USING (ledger_account / 8 = (SELECT a.number FROM accounts a WHERE a.id = tenant()));
-- A fee goes from the tenant to the operator; the owner of the lease sees it too.
CREATE POLICY tenant ON transfers TO fallow_api
    USING (debit_account / 8 = (SELECT a.number FROM accounts a WHERE a.id = tenant())
        OR credit_account / 8 = (SELECT a.number FROM accounts a WHERE a.id = tenant())
        OR EXISTS (SELECT FROM leases l WHERE l.id = reference));
CREATE POLICY tenant ON webhook_deliveries TO fallow_api
    USING (EXISTS (SELECT FROM webhook_endpoints w WHERE w.id = endpoint))
    WITH CHECK (EXISTS (SELECT FROM webhook_endpoints w WHERE w.id = endpoint));
