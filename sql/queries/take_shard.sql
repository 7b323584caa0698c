-- A new engine takes the shard: every earlier epoch is fenced from here on.
UPDATE shards SET epoch = epoch + 1 WHERE shard_id = $1 RETURNING epoch, next_seq
