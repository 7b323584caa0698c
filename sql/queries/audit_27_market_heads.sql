-- every market stands at its last tick: number, digest, and price of the last one that traded
SELECT m.id AS market, m.tick, t.tick AS last_tick, m.digest, t.digest AS last_digest, m.price, p.price AS last_price,
    CASE WHEN t.tick IS NULL THEN m.tick <> 0 OR m.price IS NOT NULL
         ELSE (m.tick, m.digest, m.price) IS DISTINCT FROM (t.tick, t.digest, p.price) END AS is_bad
FROM markets m
LEFT JOIN LATERAL (SELECT tick, digest FROM ticks WHERE market = m.id ORDER BY tick DESC LIMIT 1) t ON true
LEFT JOIN LATERAL (
    SELECT price FROM ticks WHERE market = m.id AND price IS NOT NULL ORDER BY tick DESC LIMIT 1
) p ON true
