-- no GPU is in two live leases: the occupied GPUs are those of the leases on nodes, one lease each
SELECT node, gpu, s.lease AS slot_lease, l.lease, s.lease IS NULL OR l.lease IS NULL AS is_bad
FROM gpu_slots s
FULL JOIN (
    SELECT node, unnest(gpus) AS gpu, id AS lease FROM leases WHERE state IN ('starting', 'running', 'noticed')
) l USING (node, gpu, lease)
