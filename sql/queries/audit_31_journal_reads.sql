-- every journalled command can be read
--
-- Read in blocks, and decoded outside the server. The amendments, the acknowledgements and the nodes'
-- reports found here are what three other checks judge by.
SELECT shard_id, seq, at_us, payload FROM journal ORDER BY shard_id, seq
