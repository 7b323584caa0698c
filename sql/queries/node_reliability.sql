-- What became of a node's leases awarded since $2.
SELECT count(*) FILTER (WHERE started_at_us IS NOT NULL) AS started,
    count(*) FILTER (WHERE started_at_us IS NULL AND end_reason = 'node_lost' AND cardinality(gpus) > 0)
        AS failed_to_start,
    count(*) FILTER (WHERE started_at_us IS NOT NULL AND end_reason = 'node_lost') AS lost
FROM leases WHERE node = $1 AND awarded_at_us >= $2
