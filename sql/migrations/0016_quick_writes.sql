-- A bid is looked up by its client_bid_id before it is placed. Until a table has statistics, an index on
-- (account, seq) costs the planner as much as this one, and the newer of two equals is taken: so this one is
-- made anew. The plan stays with the writer's connection while the table grows (tests/integration/test_store.py).
ALTER TABLE bids DROP CONSTRAINT bids_client_bid_id_unique;
ALTER TABLE bids ADD CONSTRAINT bids_client_bid_id_unique UNIQUE (account, client_bid_id);

-- Transfers name ledger accounts that exist: the statement's trigger finds all of them at once, or refuses. A
-- foreign key asked for each row twice, which was nearly half of what a transfer cost (bench/bench_http.py).
ALTER TABLE transfers DROP CONSTRAINT transfers_debit_account_fkey;
ALTER TABLE transfers DROP CONSTRAINT transfers_credit_account_fkey;
CREATE OR REPLACE FUNCTION apply_transfers() RETURNS trigger LANGUAGE plpgsql
    -- The planner sees one row in a transition table whatever its size; nested loops on the primary
    -- key are right at every size.
    SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off AS $$
DECLARE
    named bigint;
    moved bigint;
BEGIN
    -- One lock order for all writers: no deadlock.
    PERFORM 1 FROM ledger_balances
        WHERE ledger_account IN (SELECT debit_account FROM new_rows UNION SELECT credit_account FROM new_rows)
        ORDER BY ledger_account FOR NO KEY UPDATE;
    WITH d AS (
        SELECT account, sum(debit)::bigint AS debits, sum(credit)::bigint AS credits
        FROM (SELECT debit_account AS account, amount AS debit, 0 AS credit FROM new_rows
              UNION ALL SELECT credit_account, 0, amount FROM new_rows) legs GROUP BY account),
    m AS (
        UPDATE ledger_balances b SET debits = b.debits + d.debits, credits = b.credits + d.credits
        FROM d WHERE b.ledger_account = d.account RETURNING 1)
    SELECT (SELECT count(*) FROM d), (SELECT count(*) FROM m) INTO named, moved;
    IF moved <> named THEN
        RAISE EXCEPTION 'transfers name % ledger accounts, % of them exist', named, moved
            USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'transfers_accounts_exist', TABLE = 'transfers';
    END IF;
    RETURN NULL;
END $$;
