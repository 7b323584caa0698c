-- A market's ticks after tick $2 and since $3, $4 at most, oldest first: when, and the bounds that keep a GPU.
SELECT tick, cleared_at_us, coalesce(high, -1), coalesce(entry_price, -1)
FROM ticks WHERE market = $1 AND tick > $2 AND cleared_at_us >= $3 ORDER BY tick LIMIT $4
