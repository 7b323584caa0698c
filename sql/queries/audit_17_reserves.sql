-- no second is priced so that the owner nets less than the lowest reserve its offer had since the award
--
-- $1 offer, $2 at_us, $3 reserve: the journal's reserves of every offer that was ever amended, in journal
-- order. The award counts from its tick: a lease cut off another one is as old as that one.
-- Noted, not bad, are two prices the rules let pass: a tenant that lowered its limit below the
-- reserve pays that limit during its notice (R8), and seconds that nobody could pay are metered at zero.
WITH history AS (
    SELECT offer, at_us, reserve, lead(at_us) OVER (PARTITION BY offer ORDER BY position) AS until_us
    FROM unnest($1::text[], $2::bigint[], $3::bigint[]) WITH ORDINALITY AS h(offer, at_us, reserve, position)
), lowest AS (
    SELECT l.id AS lease, coalesce(min(h.reserve), o.reserve) AS reserve, l.market
    FROM leases l JOIN offers o ON o.id = l.offer
    LEFT JOIN ticks t ON t.market = l.market AND t.tick = l.awarded_tick
    LEFT JOIN history h ON h.offer = o.id
        AND coalesce(h.until_us >= least(l.awarded_at_us, t.cleared_at_us), true)
    GROUP BY l.id, o.reserve, l.market
), gross AS (
    -- The reserve with the operator's fee on top, rounded up to the price increment (R1).
    SELECT w.lease, m.price_increment * ceil(
        ceil(w.reserve * 10000 / (10000 - m.fee_bps)::numeric) / m.price_increment) AS reserve
    FROM lowest w JOIN markets m ON m.id = w.market
)
SELECT u.lease, u.from_s, u.price, g.reserve AS gross_reserve,
    u.price < g.reserve AND u.price > 0 AND n.lease IS NULL AS is_bad,
    u.price < g.reserve AND (u.price = 0 OR n.lease IS NOT NULL) AS is_noted
FROM usage u
JOIN gross g ON g.lease = u.lease
LEFT JOIN (
    SELECT lease, limit_price, min(issued_at_us) AS issued_at_us FROM notices GROUP BY lease, limit_price
) n ON n.lease = u.lease AND n.limit_price = u.price AND n.issued_at_us < u.to_s * 1000000
