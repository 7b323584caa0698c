-- The newest ticks of a market since $2, $3 at most, oldest first: when, and the bounds that keep a GPU.
SELECT cleared_at_us, high, entry_price FROM (
    SELECT tick, cleared_at_us, coalesce(high, -1) AS high, coalesce(entry_price, -1) AS entry_price
    FROM ticks WHERE market = $1 AND cleared_at_us >= $2 ORDER BY tick DESC LIMIT $3
) newest ORDER BY tick
