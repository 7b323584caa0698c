-- The journal after $2, in order, at most $3 entries.
SELECT seq, at_us, payload FROM journal WHERE shard_id = $1 AND seq > $2 ORDER BY seq LIMIT $3
