-- Where the counters of the shard stand.
SELECT s.next_seq - 1 AS seq,
    coalesce((SELECT j.at_us FROM journal j WHERE j.shard_id = s.shard_id AND j.seq = s.next_seq - 1), 0) AS now_us,
    (SELECT coalesce(max(seq), 0) + 1 FROM bids) AS next_bid_seq,
    (SELECT coalesce(max(seq), 0) + 1 FROM offers) AS next_offer_seq
FROM shards s WHERE s.shard_id = $1
