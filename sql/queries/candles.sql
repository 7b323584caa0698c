-- Candles of a market: for each interval of $4 microseconds in [$2, $3) with a tick, newest first, at most $5.
-- Prices are those of ticks that traded; without one all four are null.
SELECT t.cleared_at_us / $4 * $4 AS start_us,
    (array_agg(t.price ORDER BY t.tick) FILTER (WHERE t.price IS NOT NULL))[1] AS open,
    max(t.price) AS high,
    min(t.price) AS low,
    (array_agg(t.price ORDER BY t.tick DESC) FILTER (WHERE t.price IS NOT NULL))[1] AS close,
    count(*) AS ticks,
    avg(t.cleared_gpus)::bigint AS cleared_gpus,
    avg(t.offered_gpus)::bigint AS offered_gpus,
    sum(t.preempted_gpus)::bigint AS preempted_gpus
FROM ticks t
WHERE t.market = $1 AND t.cleared_at_us >= $2 AND t.cleared_at_us < $3
GROUP BY 1
ORDER BY 1 DESC
LIMIT $5
