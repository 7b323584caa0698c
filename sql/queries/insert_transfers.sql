-- Post transfers as one set; the statement's trigger moves the balances.
INSERT INTO transfers (shard_id, journal_seq, at_us, idx, code, debit_account, credit_account, amount,
    reference, interval_end_s)
SELECT $1, $2, $3, t.idx, t.code, t.debit, t.credit, t.amount, t.reference, t.interval_end_s
FROM unnest($4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::text[], $9::bigint[])
    WITH ORDINALITY AS t(code, debit, credit, amount, reference, interval_end_s, idx)
ORDER BY t.idx
