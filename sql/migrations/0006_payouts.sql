-- Money out: payouts in their states, and the operator's adjustments.

CREATE TABLE payouts (
    id            text PRIMARY KEY,
    account       text NOT NULL REFERENCES accounts,
    amount        bigint NOT NULL,
    state         text NOT NULL,
    reference     text NOT NULL,
    created_at_us bigint NOT NULL,
    closed_at_us  bigint,
    CONSTRAINT payouts_amount_positive CHECK (amount > 0),
    CONSTRAINT payouts_state_known CHECK (state IN ('created', 'paid', 'failed')),
    CONSTRAINT payouts_closed CHECK ((state = 'created') = (closed_at_us IS NULL))
);
CREATE INDEX payouts_by_account ON payouts (account, created_at_us, id);
CREATE INDEX payouts_open ON payouts (created_at_us, id) WHERE state = 'created';

ALTER TABLE transfers
    DROP CONSTRAINT transfers_code_known,
    ADD CONSTRAINT transfers_code_known CHECK (code IN ('deposit', 'hold', 'release', 'charge', 'fee', 'refund',
        'payout', 'payout_paid', 'payout_failed', 'adjustment'));
-- A payout is set aside once, and closed once.
CREATE UNIQUE INDEX paid_out_once ON transfers (reference, debit_account)
    WHERE code IN ('payout', 'payout_paid', 'payout_failed');
