SELECT b.id, w.content
FROM bids b JOIN workloads w ON (w.account, w.digest) = (b.account, b.workload)
WHERE b.id = ANY($1::text[])
