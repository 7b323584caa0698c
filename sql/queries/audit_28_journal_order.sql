-- the journal runs from 1 without holes, and no epoch follows a newer one
SELECT shard_id, seq, epoch, previous_seq, previous_epoch,
    seq <> coalesce(previous_seq, 0) + 1 OR coalesce(epoch < previous_epoch, false) AS is_bad
FROM (
    SELECT shard_id, seq, epoch, lag(seq) OVER by_seq AS previous_seq, lag(epoch) OVER by_seq AS previous_epoch
    FROM journal WINDOW by_seq AS (PARTITION BY shard_id ORDER BY seq)
) ordered
