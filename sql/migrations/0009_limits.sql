-- Limits of accounts and keys, the kill switch of a key, and accounts that count as one party.

CREATE TABLE limits (
    id                text PRIMARY KEY,
    account           text NOT NULL REFERENCES accounts,
    max_price         bigint,
    max_open_notional bigint,
    spend_cap_per_day bigint,
    is_stopped        boolean NOT NULL,
    day               bigint NOT NULL,
    spent_today       bigint NOT NULL,
    warned_spend      smallint NOT NULL,
    warned_notional   smallint NOT NULL,
    version           bigint NOT NULL,
    CONSTRAINT limits_bounds CHECK (max_price >= 0 AND max_open_notional >= 0 AND spend_cap_per_day >= 0
        AND spent_today >= 0),
    CONSTRAINT limits_warned CHECK (warned_spend IN (0, 50, 75, 90) AND warned_notional IN (0, 50, 75, 90))
);
CREATE INDEX limits_by_account ON limits (account, id);

ALTER TABLE accounts ADD COLUMN affiliation text;

ALTER TABLE bids ADD COLUMN key text;
CREATE INDEX bids_live_by_key ON bids (key)
    WHERE key IS NOT NULL AND status NOT IN ('cancelled', 'exhausted', 'expired');

ALTER TABLE leases
    DROP CONSTRAINT leases_end_reason_known,
    ADD CONSTRAINT leases_end_reason_known CHECK (end_reason IN ('outbid', 'offer_withdrawn', 'node_lost',
        'funds_exhausted', 'released', 'expired', 'max_spend', 'spend_cap', 'moved', 'operator', 'test'));
