-- every charge has one fee beside it, the market's share rounded down, and none where that is zero
SELECT t.lease, t.interval_end_s, t.charge, t.fee, m.fee_bps,
    t.charges <> 1 OR t.fees > 1 OR m.fee_bps IS NULL
        OR t.fee <> div((t.charge + t.fee) * m.fee_bps, 10000) AS is_bad
FROM (
    SELECT reference AS lease, interval_end_s,
        count(*) FILTER (WHERE code = 'charge') AS charges, count(*) FILTER (WHERE code = 'fee') AS fees,
        coalesce(sum(amount) FILTER (WHERE code = 'charge'), 0) AS charge,
        coalesce(sum(amount) FILTER (WHERE code = 'fee'), 0) AS fee
    FROM transfers WHERE code IN ('charge', 'fee') GROUP BY reference, interval_end_s
) t
LEFT JOIN leases l ON l.id = t.lease
LEFT JOIN markets m ON m.id = l.market
