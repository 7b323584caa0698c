-- Webhooks: who wants to be told where, what is still to be told, and how far the outbox was read.
--
-- None of this is part of the auction's state: no command, no journal, no replay. `events` stays the
-- truth; a delivery names an event and says how far telling it has come.

CREATE TABLE webhook_endpoints (
    id                   text PRIMARY KEY,
    account              text NOT NULL REFERENCES accounts,
    url                  text NOT NULL,
    types                text[] NOT NULL,
    description          text NOT NULL,
    state                text NOT NULL,
    reason               text,
    secret               bytea NOT NULL,
    previous_secret      bytea,
    previous_until_us    bigint,
    enabled_from_us      bigint NOT NULL,
    consecutive_failures integer NOT NULL DEFAULT 0,
    closed_until_us      bigint NOT NULL DEFAULT 0,
    created_at_us        bigint NOT NULL,
    updated_at_us        bigint NOT NULL,
    version              bigint NOT NULL DEFAULT 1,
    CONSTRAINT webhook_endpoints_state_known CHECK (state IN ('enabled', 'disabled', 'deleted')),
    CONSTRAINT webhook_endpoints_reason CHECK ((state = 'disabled') = (reason IS NOT NULL)
        AND reason IN ('owner', 'gone')),
    -- What the receiver's signature check rests on; an erased one is empty.
    CONSTRAINT webhook_endpoints_secret CHECK (octet_length(secret) = CASE state WHEN 'deleted' THEN 0 ELSE 32 END),
    CONSTRAINT webhook_endpoints_rotation CHECK ((previous_secret IS NULL) = (previous_until_us IS NULL)
        AND octet_length(previous_secret) = 32),
    CONSTRAINT webhook_endpoints_bounds CHECK (octet_length(url) BETWEEN 8 AND 2048 AND cardinality(types) <= 64)
);
CREATE INDEX webhook_endpoints_by_account ON webhook_endpoints (account, created_at_us, id) WHERE state <> 'deleted';
COMMENT ON COLUMN webhook_endpoints.types IS 'Event kinds to tell; none means every one that webhooks carry.';
COMMENT ON COLUMN webhook_endpoints.closed_until_us IS 'After repeated failures only notices are sent before this.';

CREATE TABLE webhook_deliveries (
    id                 bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    endpoint           text NOT NULL REFERENCES webhook_endpoints,
    message            text NOT NULL,
    kind               text NOT NULL,
    event              bigint,
    body               bytea,
    is_urgent          boolean NOT NULL,
    at_us              bigint NOT NULL,
    deadline_us        bigint NOT NULL,
    state              text NOT NULL DEFAULT 'pending',
    attempts           integer NOT NULL DEFAULT 0,
    next_attempt_at_us bigint NOT NULL,
    last_attempt_at_us bigint,
    last_status        smallint,
    last_error         text,
    -- An event is told to an endpoint by one delivery, however often the outbox is read.
    CONSTRAINT webhook_deliveries_once UNIQUE (endpoint, event),
    CONSTRAINT webhook_deliveries_state_known CHECK (state IN ('pending', 'delivered', 'failed')),
    CONSTRAINT webhook_deliveries_source CHECK ((event IS NULL) <> (body IS NULL)),
    CONSTRAINT webhook_deliveries_attempts CHECK (attempts >= 0)
);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (endpoint, is_urgent DESC, next_attempt_at_us)
    WHERE state = 'pending';
CREATE INDEX webhook_deliveries_deadlines ON webhook_deliveries (deadline_us) WHERE state = 'pending';
CREATE INDEX webhook_deliveries_finished ON webhook_deliveries (at_us) WHERE state <> 'pending';
CREATE INDEX webhook_deliveries_by_endpoint ON webhook_deliveries (endpoint, id);
COMMENT ON COLUMN webhook_deliveries.event IS 'events.id; a message of the sender''s own (a test) carries its body instead.';

CREATE TABLE webhook_outbox (
    only_row boolean PRIMARY KEY DEFAULT true,
    position bigint NOT NULL,
    CONSTRAINT webhook_outbox_one_row CHECK (only_row)
);
COMMENT ON TABLE webhook_outbox IS 'The last event that was turned into deliveries.';
-- What happened before there were endpoints is told to nobody.
INSERT INTO webhook_outbox (position) SELECT coalesce(max(id), 0) FROM events;
