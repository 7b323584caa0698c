-- every bid has filled the GPUs of its leases on nodes
SELECT b.id AS bid, b.filled_gpus, coalesce(l.gpus, 0) AS leased_gpus, b.filled_gpus <> coalesce(l.gpus, 0) AS is_bad
FROM bids b
LEFT JOIN (
    SELECT bid, sum(gpu_count) AS gpus FROM leases WHERE state IN ('starting', 'running', 'noticed') GROUP BY bid
) l ON l.bid = b.id
