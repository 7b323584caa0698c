-- After a lost connection: whose is the shard, and where does its journal end?
SELECT epoch, next_seq FROM shards WHERE shard_id = $1
