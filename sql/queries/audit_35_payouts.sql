-- every payout was set aside once, and what was closed went out or back, whole
SELECT p.id AS payout, p.state, p.amount, t.set_aside, t.paid, t.failed,
    coalesce(t.set_aside, 0) <> p.amount
        OR coalesce(t.paid, 0) <> CASE p.state WHEN 'paid' THEN p.amount ELSE 0 END
        OR coalesce(t.failed, 0) <> CASE p.state WHEN 'failed' THEN p.amount ELSE 0 END AS is_bad
FROM payouts p
LEFT JOIN (
    SELECT reference, sum(amount) FILTER (WHERE code = 'payout') AS set_aside,
        sum(amount) FILTER (WHERE code = 'payout_paid') AS paid,
        sum(amount) FILTER (WHERE code = 'payout_failed') AS failed
    FROM transfers WHERE code IN ('payout', 'payout_paid', 'payout_failed') GROUP BY reference
) t ON t.reference = p.id
