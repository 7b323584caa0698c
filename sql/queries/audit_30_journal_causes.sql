-- every tick and every transfer has its command in the journal
SELECT 'tick ' || t.tick || ' of ' || t.market AS effect, t.journal_seq, j.seq IS NULL AS is_bad
FROM ticks t LEFT JOIN (SELECT DISTINCT seq FROM journal) j ON j.seq = t.journal_seq
UNION ALL
SELECT 'transfer ' || t.id, t.journal_seq, j.seq IS NULL
FROM transfers t LEFT JOIN journal j ON j.shard_id = t.shard_id AND j.seq = t.journal_seq
