-- The first part of every engine transaction: nothing returned means that this engine is fenced.
UPDATE shards SET next_seq = $4 WHERE shard_id = $1 AND epoch = $2 AND next_seq = $3 RETURNING next_seq
