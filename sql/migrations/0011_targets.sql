-- Server-side targets: what is wanted, and how many bids were placed for it. Their ids derive from the
-- target's, so the bids themselves are the record; nothing here is part of the auction's state.

CREATE TABLE targets (
    id            text PRIMARY KEY,
    account       text NOT NULL REFERENCES accounts,
    key           text NOT NULL,
    kind          text NOT NULL,
    market        text NOT NULL REFERENCES markets,
    gpus          integer NOT NULL,
    min_gpus      integer NOT NULL,
    limit_price   bigint NOT NULL,
    gpu_seconds   bigint,
    ends_at_us    bigint,
    max_spend     bigint,
    spend_per_day bigint,
    created_at_us bigint NOT NULL,
    updated_at_us bigint NOT NULL,
    state         text NOT NULL,
    reason        text,
    bids          integer NOT NULL,
    day           bigint NOT NULL,
    day_cap       bigint NOT NULL,
    is_settled    boolean NOT NULL,
    version       bigint NOT NULL,
    CONSTRAINT targets_kind CHECK (CASE kind
        WHEN 'hold' THEN gpu_seconds IS NULL AND spend_per_day IS NULL
        WHEN 'deadline' THEN gpu_seconds > 0 AND spend_per_day IS NULL AND ends_at_us IS NOT NULL AND max_spend IS NOT NULL
        WHEN 'pace' THEN gpu_seconds IS NULL AND spend_per_day > 0
        ELSE false END),
    CONSTRAINT targets_state_known CHECK (state IN ('active', 'paused', 'met', 'missed', 'exhausted', 'ended', 'cancelled')),
    CONSTRAINT targets_settled CHECK (NOT (is_settled AND state IN ('active', 'paused'))),
    CONSTRAINT targets_bounds CHECK (min_gpus >= 1 AND gpus >= min_gpus AND limit_price > 0 AND max_spend > 0 AND bids >= 0)
);
CREATE INDEX targets_by_account ON targets (account, created_at_us, id);
CREATE INDEX targets_unsettled ON targets (id) WHERE NOT is_settled;
