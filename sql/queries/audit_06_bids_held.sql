-- every bid's hold is what was held, less what was released and what its leases were charged
SELECT b.id AS bid, b.held, coalesce(h.amount, 0) - coalesce(c.amount, 0) AS held_folded,
    b.held <> coalesce(h.amount, 0) - coalesce(c.amount, 0) AS is_bad
FROM bids b
LEFT JOIN (
    SELECT reference, sum(CASE code WHEN 'hold' THEN amount ELSE -amount END) AS amount
    FROM transfers WHERE code IN ('hold', 'release') GROUP BY reference
) h ON h.reference = b.id
LEFT JOIN (
    SELECT l.bid, sum(t.amount) AS amount
    FROM transfers t JOIN leases l ON l.id = t.reference
    WHERE t.code IN ('charge', 'fee') GROUP BY l.bid
) c ON c.bid = b.id
