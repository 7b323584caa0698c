-- Free the GPUs that these leases ($1) do not occupy any more.
DELETE FROM gpu_slots s WHERE s.lease = ANY ($1::text[]) AND NOT EXISTS (
    SELECT 1 FROM unnest($2::text[], $3::smallint[], $4::text[]) AS w(node, gpu, lease)
    WHERE w.node = s.node AND w.gpu = s.gpu AND w.lease = s.lease)
