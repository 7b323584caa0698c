-- Append accepted commands in their order.
INSERT INTO journal (shard_id, epoch, seq, at_us, payload)
SELECT $1, $2, e.seq, e.at_us, e.payload
FROM unnest($3::bigint[], $4::bigint[], $5::bytea[]) AS e(seq, at_us, payload)
