-- every shard stands at the end of its journal, in an epoch no older than its last entry's
SELECT s.shard_id, s.next_seq, coalesce(j.seq, 0) AS last_seq, s.epoch, j.epoch AS last_epoch,
    s.next_seq <> coalesce(j.seq, 0) + 1 OR coalesce(s.epoch < j.epoch, false) AS is_bad
FROM shards s
LEFT JOIN LATERAL (SELECT seq, epoch FROM journal WHERE shard_id = s.shard_id ORDER BY seq DESC LIMIT 1) j ON true
