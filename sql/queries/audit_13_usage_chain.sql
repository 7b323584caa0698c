-- every usage row starts where the one before it ended, with the remainder it left and no more GPUs
SELECT lease, from_s, to_s, carry_in, gpu_count, previous_to_s, previous_carry, previous_gpus,
    CASE WHEN previous_to_s IS NULL THEN NOT is_first OR carry_in <> 0
         ELSE is_first OR from_s <> previous_to_s OR carry_in <> previous_carry
            OR gpu_count > previous_gpus END AS is_bad
FROM (
    SELECT lease, from_s, to_s, carry_in, gpu_count, is_first, lag(to_s) OVER by_start AS previous_to_s,
        lag(carry_out) OVER by_start AS previous_carry, lag(gpu_count) OVER by_start AS previous_gpus
    FROM usage WINDOW by_start AS (PARTITION BY lease ORDER BY from_s)
) chained
