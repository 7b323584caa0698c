-- every lease's GPUs are distinct GPUs of its node, as many as it counts
SELECT l.id AS lease, l.node, l.gpus, l.gpu_count, n.gpus AS node_gpus,
    g.lowest < 0 OR g.highest >= n.gpus OR g.different <> cardinality(l.gpus)
        OR cardinality(l.gpus) NOT IN (0, l.gpu_count) AS is_bad
FROM leases l
JOIN nodes n ON n.id = l.node
CROSS JOIN LATERAL (
    SELECT coalesce(min(gpu), 0) AS lowest, coalesce(max(gpu), 0) AS highest, count(DISTINCT gpu) AS different
    FROM unnest(l.gpus) AS gpu
) g
