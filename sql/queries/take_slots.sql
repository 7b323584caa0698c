-- Occupy GPUs. One that another lease holds breaks gpu_in_one_lease, and with it the transaction.
INSERT INTO gpu_slots (node, gpu, lease)
SELECT w.node, w.gpu, w.lease FROM unnest($1::text[], $2::smallint[], $3::text[]) AS w(node, gpu, lease)
WHERE NOT EXISTS (
    SELECT 1 FROM gpu_slots s WHERE s.node = w.node AND s.gpu = w.gpu AND s.lease = w.lease)
