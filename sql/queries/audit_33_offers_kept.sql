-- no offer lends more GPUs than it offers
SELECT o.id AS offer, o.gpus, coalesce(sum(l.gpu_count), 0) AS lent, coalesce(sum(l.gpu_count), 0) > o.gpus AS is_bad
FROM offers o LEFT JOIN leases l ON l.offer = o.id AND l.state IN ('starting', 'running', 'noticed')
GROUP BY o.id, o.gpus
