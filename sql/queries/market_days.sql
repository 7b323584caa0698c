-- Each market's last tick, and what happened since $1 (a day ago) and since $2 (an hour ago).
SELECT m.id AS market,
    t.price, t.cleared_gpus, t.offered_gpus, t.demanded_gpus, t.cleared_at_us,
    (SELECT b.price FROM ticks b WHERE b.market = m.id AND b.cleared_at_us >= $1 AND b.price IS NOT NULL
        ORDER BY b.cleared_at_us LIMIT 1) AS day_open,
    d.day_high, d.day_low,
    (SELECT coalesce(sum(h.preempted_gpus), 0)::bigint FROM ticks h
        WHERE h.market = m.id AND h.cleared_at_us >= $2) AS preempted_hour
FROM markets m
LEFT JOIN LATERAL (SELECT * FROM ticks WHERE market = m.id ORDER BY tick DESC LIMIT 1) t ON true
LEFT JOIN LATERAL (SELECT max(p.price) AS day_high, min(p.price) AS day_low FROM ticks p
    WHERE p.market = m.id AND p.cleared_at_us >= $1) d ON true
ORDER BY m.id
