-- Every account has its ledger accounts before anything can be posted to them.
INSERT INTO ledger_balances (ledger_account, floored)
SELECT a.ledger_account, a.floored FROM unnest($1::bigint[], $2::boolean[]) AS a(ledger_account, floored)
ON CONFLICT (ledger_account) DO NOTHING
