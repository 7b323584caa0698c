-- Keep the whole state as of a sequence number, for the audit.
INSERT INTO snapshots (shard_id, seq, state_hash, payload) VALUES ($1, $2, $3, $4)
ON CONFLICT (shard_id, seq) DO NOTHING
