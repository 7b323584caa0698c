-- Meter: each row starts where the lease's last one ended (the foreign key refuses anything else).
INSERT INTO usage (lease, from_s, to_s, gpu_count, price, carry_in, is_first)
SELECT u.lease, u.from_s, u.to_s, u.gpu_count, u.price, u.carry_in, u.is_first
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::boolean[])
    AS u(lease, from_s, to_s, gpu_count, price, carry_in, is_first)
