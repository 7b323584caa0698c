-- What an account was told of its money running out, and the month whose statements were announced last.

ALTER TABLE accounts
    ADD COLUMN funds_told text NOT NULL DEFAULT 'nothing',
    ADD CONSTRAINT accounts_funds_told CHECK (funds_told IN ('nothing', 'low', 'exhausted'));

ALTER TABLE webhook_outbox ADD COLUMN statement_told text;
COMMENT ON COLUMN webhook_outbox.statement_told IS 'The last month whose statement.final was queued; null before the first look.';
