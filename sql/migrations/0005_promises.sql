-- Promises: what a broken one gives back, interruptions for a test, hand-overs spread over time.

ALTER TABLE leases
    ADD COLUMN refunded bigint NOT NULL DEFAULT 0,
    ADD CONSTRAINT leases_refund_bounded CHECK (refunded BETWEEN 0 AND settled),
    DROP CONSTRAINT leases_end_reason_known,
    ADD CONSTRAINT leases_end_reason_known CHECK (end_reason IN ('outbid', 'offer_withdrawn', 'node_lost',
        'funds_exhausted', 'released', 'expired', 'max_spend', 'moved', 'operator', 'test'));

ALTER TABLE transfers
    DROP CONSTRAINT transfers_code_known,
    ADD CONSTRAINT transfers_code_known
        CHECK (code IN ('deposit', 'hold', 'release', 'charge', 'fee', 'refund'));
-- A lease is refunded once, from each account that pays for it.
CREATE UNIQUE INDEX refunded_once ON transfers (reference, debit_account) WHERE code = 'refund';

ALTER TABLE markets
    ADD COLUMN stagger_share_bps integer,
    ADD CONSTRAINT markets_stagger CHECK (stagger_share_bps BETWEEN 1 AND 10000);
