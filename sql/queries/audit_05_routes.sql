-- every transfer moves between the two accounts that its code and its reference name
SELECT t.id, t.code, t.reference, t.debit_account, t.credit_account, buyer.number AS buyer, owner.number AS owner,
    CASE t.code
        WHEN 'deposit' THEN t.debit_account <> 4 OR t.credit_account % 8 <> 0 OR t.credit_account <= 0
        WHEN 'hold' THEN (t.debit_account, t.credit_account) <> (buyer.number * 8, buyer.number * 8 + 1)
        WHEN 'release' THEN (t.debit_account, t.credit_account) <> (buyer.number * 8 + 1, buyer.number * 8)
        WHEN 'charge' THEN (t.debit_account, t.credit_account) <> (buyer.number * 8 + 1, owner.number * 8 + 2)
        WHEN 'fee' THEN (t.debit_account, t.credit_account) <> (buyer.number * 8 + 1, 5)
        WHEN 'refund' THEN t.credit_account <> buyer.number * 8
            OR t.debit_account NOT IN (owner.number * 8 + 2, 5, 4)
        WHEN 'payout' THEN (t.debit_account, t.credit_account) <> (owner.number * 8 + 2, owner.number * 8 + 3)
        WHEN 'payout_paid' THEN (t.debit_account, t.credit_account) <> (owner.number * 8 + 3, 4)
        WHEN 'payout_failed' THEN (t.debit_account, t.credit_account) <> (owner.number * 8 + 3, owner.number * 8 + 2)
        WHEN 'adjustment' THEN NOT (
            t.debit_account = 4 AND t.credit_account >= 8 AND t.credit_account % 8 IN (0, 2)
            OR t.credit_account = 4 AND t.debit_account >= 8 AND t.debit_account % 8 IN (0, 2))
    END IS NOT FALSE AS is_bad
FROM transfers t
LEFT JOIN bids b ON b.id = t.reference AND t.code IN ('hold', 'release')
LEFT JOIN leases l ON l.id = t.reference AND t.code IN ('charge', 'fee', 'refund')
LEFT JOIN accounts buyer ON buyer.id = coalesce(b.account, l.account)
LEFT JOIN payouts p ON p.id = t.reference AND t.code IN ('payout', 'payout_paid', 'payout_failed')
LEFT JOIN accounts owner ON owner.id = coalesce(l.owner, p.account)
