-- The newest snapshot.
SELECT seq, state_hash, payload FROM snapshots WHERE shard_id = $1 ORDER BY seq DESC LIMIT 1
