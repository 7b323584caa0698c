-- Where the counters of the shard stand.
SELECT s.next_seq - 1 AS seq,
    (SELECT coalesce(max(seq), 0) + 1 FROM bids) AS next_bid_seq,
    (SELECT coalesce(max(seq), 0) + 1 FROM offers) AS next_offer_seq
FROM shards s WHERE s.shard_id = $1
