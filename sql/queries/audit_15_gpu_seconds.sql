-- every lease counts the GPU-seconds of its usage, none of it with fewer GPUs than it has now
--
-- A lease that gives some of its GPUs up goes on with the rest: it shrinks, and never grows.
SELECT l.id AS lease, l.gpu_seconds, coalesce(u.gpu_seconds, 0) AS usage_gpu_seconds, l.gpu_count, u.fewest_gpus,
    l.gpu_seconds <> coalesce(u.gpu_seconds, 0) OR coalesce(u.fewest_gpus < l.gpu_count, false) AS is_bad
FROM leases l
LEFT JOIN (
    SELECT lease, sum((to_s - from_s) * gpu_count) AS gpu_seconds, min(gpu_count) AS fewest_gpus
    FROM usage GROUP BY lease
) u ON u.lease = l.id
