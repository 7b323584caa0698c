-- A market's prices since the last one set before $2 (or, without $2, the last one of all).
SELECT t.cleared_at_us, t.price FROM ticks t
WHERE t.market = $1 AND t.price IS NOT NULL AND t.tick >= coalesce(
    (SELECT max(p.tick) FROM ticks p WHERE p.market = $1 AND p.price IS NOT NULL
        AND ($2::bigint IS NULL OR p.cleared_at_us < $2)), 0)
ORDER BY t.tick
