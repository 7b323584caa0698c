-- The market of one shard: who, what, the book, the leases, the money, the record.
--
-- Prices are microusd per GPU-hour, amounts microusd, *_us microseconds and *_s seconds since the
-- epoch. Every constraint has a name: sql/ translates names, never messages. What must never happen
-- (a GPU leased twice, a second billed twice, an unbalanced transfer, an edited record) cannot be
-- written at all.

CREATE TABLE shards (
    shard_id smallint PRIMARY KEY,
    epoch    bigint NOT NULL DEFAULT 0,
    next_seq bigint NOT NULL DEFAULT 1,
    CONSTRAINT shards_epoch_grows CHECK (epoch >= 0 AND next_seq >= 1)
) WITH (fillfactor = 50);
COMMENT ON TABLE shards IS 'One row per shard; its epoch fences every engine but the newest.';
INSERT INTO shards (shard_id) VALUES (0);

CREATE TABLE accounts (
    id            text PRIMARY KEY,
    number        bigint NOT NULL,
    name          text NOT NULL,
    roles         text[] NOT NULL,
    state         text NOT NULL,
    created_at_us bigint NOT NULL,
    event_seq     bigint NOT NULL,
    CONSTRAINT accounts_number_unique UNIQUE (number),
    CONSTRAINT accounts_state_known CHECK (state IN ('open', 'frozen')),
    CONSTRAINT accounts_number_positive CHECK (number > 0)
);

CREATE TABLE api_keys (
    id            text PRIMARY KEY,
    account       text NOT NULL REFERENCES accounts,
    public_id     text NOT NULL,
    secret_sha256 bytea NOT NULL,
    name          text NOT NULL,
    scopes        text[] NOT NULL,
    created_at_us bigint NOT NULL,
    expires_at_us bigint,
    revoked_at_us bigint,
    CONSTRAINT api_keys_public_id_unique UNIQUE (public_id),
    CONSTRAINT api_keys_hash_length CHECK (octet_length(secret_sha256) = 32)
);
CREATE INDEX api_keys_by_account ON api_keys (account, id);

CREATE TABLE markets (
    id              text PRIMARY KEY,
    kind            text NOT NULL,
    gpu_model       text NOT NULL,
    gpu_memory_gib  integer NOT NULL,
    gpus_per_node   integer NOT NULL,
    interconnect    text NOT NULL,
    region          text NOT NULL,
    tick_seconds    integer NOT NULL,
    price_increment bigint NOT NULL,
    price_cap       bigint NOT NULL,
    notice_seconds  integer NOT NULL,
    settlement_seconds integer NOT NULL,
    handicap_bps    integer NOT NULL,
    fee_bps         integer NOT NULL,
    is_demo         boolean NOT NULL,
    created_at_us   bigint NOT NULL,
    status          text NOT NULL,
    status_reason   text,
    tick            bigint NOT NULL,
    next_tick_at_us bigint NOT NULL,
    price           bigint,
    digest          text NOT NULL,
    input_hash      text NOT NULL,
    CONSTRAINT markets_kind_known CHECK (kind IN ('gpu', 'model')),
    CONSTRAINT markets_status_known CHECK (status IN ('open', 'cancel_only', 'halted')),
    CONSTRAINT markets_grid CHECK (price_increment > 0 AND price_cap % price_increment = 0
        AND price_cap / price_increment BETWEEN 1 AND 131072 AND price_cap <= 1000000000),
    CONSTRAINT markets_bounds CHECK (tick_seconds BETWEEN 1 AND 3600 AND notice_seconds BETWEEN 0 AND 1800
        AND settlement_seconds BETWEEN 1 AND 1800 AND handicap_bps BETWEEN 0 AND 100000 AND fee_bps BETWEEN 0 AND 5000)
);

CREATE TABLE nodes (
    id            text PRIMARY KEY,
    account       text NOT NULL REFERENCES accounts,
    market        text NOT NULL REFERENCES markets,
    name          text NOT NULL,
    gpus          integer NOT NULL,
    simulated     boolean NOT NULL,
    state         text NOT NULL,
    created_at_us bigint NOT NULL,
    version       bigint NOT NULL,
    CONSTRAINT nodes_name_unique UNIQUE (account, name),
    CONSTRAINT nodes_gpus_positive CHECK (gpus BETWEEN 1 AND 1024),
    CONSTRAINT nodes_state_known CHECK (state IN ('enrolling', 'online', 'cordoned'))
);
CREATE INDEX nodes_by_account ON nodes (account, created_at_us, id);

CREATE TABLE offers (
    id                 text PRIMARY KEY,
    account            text NOT NULL REFERENCES accounts,
    node               text NOT NULL REFERENCES nodes,
    market             text NOT NULL REFERENCES markets,
    gpus               integer NOT NULL,
    reserve            bigint NOT NULL,
    gross_reserve      bigint NOT NULL,
    available_from_us  bigint NOT NULL,
    available_until_us bigint,
    notice_seconds     integer NOT NULL,
    status             text NOT NULL,
    seq                bigint NOT NULL,
    created_at_us      bigint NOT NULL,
    updated_at_us      bigint NOT NULL,
    version            bigint NOT NULL,
    CONSTRAINT offers_seq_unique UNIQUE (seq),
    CONSTRAINT offers_gpus_positive CHECK (gpus > 0),
    CONSTRAINT offers_reserve_covered CHECK (reserve >= 0 AND gross_reserve >= reserve),
    CONSTRAINT offers_status_known
        CHECK (status IN ('listed', 'partly_leased', 'leased', 'withdrawing', 'withdrawn'))
);
CREATE INDEX offers_by_account ON offers (account, seq);
CREATE INDEX offers_live ON offers (market) WHERE status <> 'withdrawn';

CREATE TABLE bids (
    id              text PRIMARY KEY,
    account         text NOT NULL REFERENCES accounts,
    market          text NOT NULL REFERENCES markets,
    gpus            integer NOT NULL,
    limit_price     bigint NOT NULL,
    min_gpus        integer NOT NULL,
    status          text NOT NULL,
    seq             bigint NOT NULL,
    arrival_tick    bigint NOT NULL,
    arrival_hash    bigint NOT NULL,
    created_at_us   bigint NOT NULL,
    updated_at_us   bigint NOT NULL,
    client_bid_id   text,
    labels          bytea NOT NULL,
    filled_gpus     integer NOT NULL,
    awarded_gpus    integer NOT NULL,
    held            bigint NOT NULL,
    spent           bigint NOT NULL,
    is_paused       boolean NOT NULL,
    is_newcomer     boolean NOT NULL,
    reclaimed_gpus  integer NOT NULL,
    reason_code     text,
    reason_price    bigint,
    reason_needed   integer,
    reason_usable   integer,
    version         bigint NOT NULL,
    CONSTRAINT bids_seq_unique UNIQUE (seq),
    CONSTRAINT bids_client_bid_id_unique UNIQUE (account, client_bid_id),
    CONSTRAINT bids_quantities CHECK (gpus BETWEEN 0 AND 1000000 AND min_gpus BETWEEN 1 AND 1000000
        AND filled_gpus >= 0 AND awarded_gpus BETWEEN 0 AND 1000000),
    CONSTRAINT bids_limit_positive CHECK (limit_price > 0 AND limit_price <= 1000000000),
    CONSTRAINT bids_hold_not_negative CHECK (held >= 0 AND spent >= 0),
    CONSTRAINT bids_status_known CHECK (status IN
        ('open', 'partial', 'filled', 'preempting', 'paused', 'cancelled', 'exhausted')),
    -- No hold outlives its bid (STYLE.md, invariant list).
    CONSTRAINT bids_final_hold_released CHECK (status NOT IN ('cancelled', 'exhausted') OR held = 0 OR filled_gpus > 0)
) WITH (fillfactor = 70);
CREATE INDEX bids_by_account ON bids (account, seq);
CREATE INDEX bids_live ON bids (market) WHERE status NOT IN ('cancelled', 'exhausted');

CREATE TABLE leases (
    id             text PRIMARY KEY,
    bid            text NOT NULL REFERENCES bids,
    account        text NOT NULL REFERENCES accounts,
    owner          text NOT NULL REFERENCES accounts,
    market         text NOT NULL REFERENCES markets,
    node           text NOT NULL REFERENCES nodes,
    offer          text NOT NULL REFERENCES offers,
    gpu_count      integer NOT NULL,
    gpus           smallint[] NOT NULL,
    state          text NOT NULL,
    awarded_at_us  bigint NOT NULL,
    awarded_tick   bigint NOT NULL,
    started_at_us  bigint,
    ended_at_us    bigint,
    end_reason     text,
    notice         text,
    notice_price   bigint,
    metered_to_s   bigint,
    carry          integer NOT NULL,
    metered        bigint NOT NULL,
    settled        bigint NOT NULL,
    settled_to_s   bigint,
    gpu_seconds    bigint NOT NULL,
    drained_at_us  bigint,
    connect        bytea NOT NULL,
    version        bigint NOT NULL,
    CONSTRAINT leases_gpu_count_positive CHECK (gpu_count > 0),
    CONSTRAINT leases_gpus_assigned CHECK (state IN ('pending', 'ended') OR cardinality(gpus) = gpu_count),
    CONSTRAINT leases_state_known CHECK (state IN ('pending', 'starting', 'running', 'noticed', 'ended')),
    -- No lease ends without a recorded cause (I20).
    CONSTRAINT leases_end_has_cause CHECK ((state = 'ended') = (end_reason IS NOT NULL)
        AND (state = 'ended') = (ended_at_us IS NOT NULL)),
    CONSTRAINT leases_end_reason_known CHECK (end_reason IN ('outbid', 'offer_withdrawn', 'node_lost',
        'funds_exhausted', 'released', 'expired', 'max_spend', 'moved', 'operator')),
    CONSTRAINT leases_billed_when_started CHECK (state NOT IN ('running', 'noticed') OR started_at_us IS NOT NULL),
    CONSTRAINT leases_ended_settled CHECK (state <> 'ended' OR metered = settled),
    CONSTRAINT leases_carry CHECK (carry BETWEEN 0 AND 3599)
) WITH (fillfactor = 70);
CREATE INDEX leases_by_bid ON leases (bid);
CREATE INDEX leases_by_account ON leases (account, awarded_at_us, id);
CREATE INDEX leases_by_node ON leases (node) WHERE state <> 'ended';
CREATE INDEX leases_live ON leases (market) WHERE state <> 'ended';

CREATE TABLE gpu_slots (
    node  text NOT NULL REFERENCES nodes,
    gpu   smallint NOT NULL,
    lease text NOT NULL REFERENCES leases,
    CONSTRAINT gpu_in_one_lease PRIMARY KEY (node, gpu)
);
CREATE INDEX gpu_slots_by_lease ON gpu_slots (lease);
COMMENT ON TABLE gpu_slots IS 'GPUs on a node that a lease occupies now: a GPU sold twice is unrepresentable (I25).';

CREATE TABLE notices (
    id            text PRIMARY KEY,
    lease         text NOT NULL REFERENCES leases,
    bid           text NOT NULL REFERENCES bids,
    account       text NOT NULL REFERENCES accounts,
    market        text NOT NULL REFERENCES markets,
    reason        text NOT NULL,
    state         text NOT NULL,
    issued_at_us  bigint NOT NULL,
    reclaim_at_us bigint NOT NULL,
    tick          bigint NOT NULL,
    price         bigint,
    limit_price   bigint NOT NULL,
    keep_price    bigint,
    closed_at_us  bigint,
    CONSTRAINT notices_state_known CHECK (state IN ('issued', 'acknowledged', 'withdrawn', 'done')),
    CONSTRAINT notices_order CHECK (reclaim_at_us >= issued_at_us),
    CONSTRAINT notices_closed CHECK ((state IN ('withdrawn', 'done')) = (closed_at_us IS NOT NULL))
);
CREATE UNIQUE INDEX one_live_notice ON notices (lease) WHERE closed_at_us IS NULL;
CREATE INDEX notices_by_account ON notices (account, issued_at_us, id);

CREATE TABLE ticks (
    market            text NOT NULL REFERENCES markets,
    tick              bigint NOT NULL,
    cleared_at_us     bigint NOT NULL,
    price             bigint,
    low               bigint,
    high              bigint,
    entry_price       bigint,
    cleared_gpus      integer NOT NULL,
    offered_gpus      integer NOT NULL,
    demanded_gpus     integer NOT NULL,
    bids              integer NOT NULL,
    offers            integer NOT NULL,
    started_gpus      integer NOT NULL,
    preempted_gpus    integer NOT NULL,
    not_fitted        integer NOT NULL,
    input_hash        text NOT NULL,
    output_hash       text NOT NULL,
    previous_digest   text NOT NULL,
    digest            text NOT NULL,
    journal_seq       bigint NOT NULL,
    idle_reserve_gpus integer NOT NULL,
    idle_unfit_gpus   integer NOT NULL,
    CONSTRAINT ticks_pkey PRIMARY KEY (market, tick),
    CONSTRAINT ticks_no_fork UNIQUE (market, previous_digest),
    CONSTRAINT ticks_price_interval CHECK (price IS NULL OR (low <= price AND price <= high)),
    CONSTRAINT ticks_cleared_offered CHECK (cleared_gpus BETWEEN 0 AND offered_gpus)
);
CREATE INDEX ticks_by_time ON ticks (market, cleared_at_us);

CREATE TABLE journal (
    shard_id smallint NOT NULL REFERENCES shards,
    seq      bigint NOT NULL,
    epoch    bigint NOT NULL,
    at_us    bigint NOT NULL,
    payload  bytea NOT NULL,
    CONSTRAINT journal_pkey PRIMARY KEY (shard_id, seq)
);
COMMENT ON TABLE journal IS 'The accepted commands in their one total order; replay rebuilds the state.';

CREATE TABLE snapshots (
    shard_id   smallint NOT NULL REFERENCES shards,
    seq        bigint NOT NULL,
    state_hash text NOT NULL,
    payload    bytea NOT NULL,
    CONSTRAINT snapshots_pkey PRIMARY KEY (shard_id, seq)
);

CREATE TABLE idempotency_keys (
    account       text NOT NULL,
    key           text NOT NULL,
    request_hash  bytea NOT NULL,
    status        smallint NOT NULL,
    content_type  text NOT NULL,
    body          bytea NOT NULL,
    created_at_us bigint NOT NULL,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (account, key)
);

CREATE TABLE events (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    account     text REFERENCES accounts,
    account_seq bigint NOT NULL,
    kind        text NOT NULL,
    at_us       bigint NOT NULL,
    market      text,
    tick        bigint,
    body        bytea NOT NULL,
    CONSTRAINT events_seq_gapless UNIQUE (account, account_seq)
);
CREATE INDEX events_by_market ON events (market, id) WHERE account IS NULL;
COMMENT ON TABLE events IS 'The outbox: written with the change it tells of, read by every channel.';

-- ---------------------------------------------------------------------------------------------
-- The ledger. A transfer is one row with both legs, so an imbalance cannot be written.
-- Ledger account = account number * 8 + code; number 0 is the operator. See auction/ledger.py.

CREATE TABLE ledger_balances (
    ledger_account bigint PRIMARY KEY,
    debits         bigint NOT NULL DEFAULT 0,
    credits        bigint NOT NULL DEFAULT 0,
    floored        boolean NOT NULL,
    CONSTRAINT ledger_balances_counters CHECK (debits >= 0 AND credits >= 0),
    CONSTRAINT ledger_balances_floor CHECK (floored OR ledger_account = 4),
    CONSTRAINT no_overdraft CHECK (NOT floored OR credits >= debits)
) WITH (fillfactor = 50);
INSERT INTO ledger_balances (ledger_account, floored) VALUES (4, false), (5, true), (6, true);
COMMENT ON COLUMN ledger_balances.floored IS 'False for the operator''s cash account only: money enters there.';

CREATE TABLE transfers (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    shard_id       smallint NOT NULL,
    journal_seq    bigint NOT NULL,
    idx            integer NOT NULL,
    code           text NOT NULL,
    debit_account  bigint NOT NULL REFERENCES ledger_balances,
    credit_account bigint NOT NULL REFERENCES ledger_balances,
    amount         bigint NOT NULL,
    reference      text NOT NULL,
    interval_end_s bigint NOT NULL,
    at_us          bigint NOT NULL,
    CONSTRAINT transfers_once UNIQUE (shard_id, journal_seq, idx),
    CONSTRAINT transfers_amount_positive CHECK (amount > 0),
    CONSTRAINT transfers_two_sides CHECK (debit_account <> credit_account),
    CONSTRAINT transfers_code_known CHECK (code IN ('deposit', 'hold', 'release', 'charge', 'fee'))
);
-- Each (lease, interval) is charged once, whoever asks (I18).
CREATE UNIQUE INDEX charged_once ON transfers (reference, interval_end_s, code) WHERE code IN ('charge', 'fee');
CREATE INDEX transfers_by_debit ON transfers (debit_account, id);
CREATE INDEX transfers_by_credit ON transfers (credit_account, id);

CREATE FUNCTION apply_transfers() RETURNS trigger LANGUAGE plpgsql
    -- The planner sees one row in a transition table whatever its size; nested loops on the primary
    -- key are right at every size.
    SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off AS $$
BEGIN
    -- One lock order for all writers: no deadlock.
    PERFORM 1 FROM ledger_balances
        WHERE ledger_account IN (SELECT debit_account FROM new_rows UNION SELECT credit_account FROM new_rows)
        ORDER BY ledger_account FOR NO KEY UPDATE;
    UPDATE ledger_balances b SET debits = b.debits + d.debits, credits = b.credits + d.credits
    FROM (SELECT account, sum(debit)::bigint AS debits, sum(credit)::bigint AS credits
          FROM (SELECT debit_account AS account, amount AS debit, 0 AS credit FROM new_rows
                UNION ALL SELECT credit_account, 0, amount FROM new_rows) legs GROUP BY account) d
    WHERE b.ledger_account = d.account;
    RETURN NULL;
END $$;
CREATE TRIGGER transfers_apply AFTER INSERT ON transfers REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION apply_transfers();

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'restrict_violation'; END $$;
CREATE TRIGGER transfers_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON transfers
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER journal_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON journal
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER ticks_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ticks
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Balances change through transfers only.
CREATE FUNCTION refuse_direct_balance() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF pg_trigger_depth() < 2 THEN
        RAISE EXCEPTION 'balances change through transfers only' USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE FUNCTION refuse_opening_balance() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'balances change through transfers only' USING ERRCODE = 'restrict_violation';
END $$;
CREATE TRIGGER ledger_balances_open_empty BEFORE INSERT ON ledger_balances
    FOR EACH ROW WHEN (NEW.debits <> 0 OR NEW.credits <> 0) EXECUTE FUNCTION refuse_opening_balance();
CREATE TRIGGER ledger_balances_guard AFTER UPDATE OR DELETE OR TRUNCATE ON ledger_balances
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_direct_balance();

-- ---------------------------------------------------------------------------------------------
-- Metering. Each row starts where the last one ended, with the remainder it left: a gap, an overlap
-- and a second bill for one second are unrepresentable (I26).

CREATE TABLE usage (
    lease     text NOT NULL REFERENCES leases,
    from_s    bigint NOT NULL,
    to_s      bigint NOT NULL,
    gpu_count integer NOT NULL,
    price     bigint NOT NULL,
    carry_in  integer NOT NULL,
    is_first  boolean NOT NULL,
    amount    bigint GENERATED ALWAYS AS ((price * gpu_count * (to_s - from_s) + carry_in) / 3600) STORED,
    carry_out integer GENERATED ALWAYS AS (((price * gpu_count * (to_s - from_s) + carry_in) % 3600)::integer) STORED,
    follows_s bigint GENERATED ALWAYS AS (CASE WHEN is_first THEN NULL ELSE from_s END) STORED,
    CONSTRAINT usage_pkey PRIMARY KEY (lease, from_s),
    CONSTRAINT usage_ends_once UNIQUE (lease, to_s, carry_out),
    CONSTRAINT usage_bounds CHECK (to_s > from_s AND gpu_count > 0 AND price BETWEEN 0 AND 1000000000
        AND carry_in BETWEEN 0 AND 3599),
    CONSTRAINT usage_first_has_no_carry CHECK (NOT is_first OR carry_in = 0),
    CONSTRAINT usage_chain FOREIGN KEY (lease, follows_s, carry_in) REFERENCES usage (lease, to_s, carry_out)
);
CREATE UNIQUE INDEX usage_one_start ON usage (lease) WHERE is_first;
CREATE TRIGGER usage_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON usage
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
