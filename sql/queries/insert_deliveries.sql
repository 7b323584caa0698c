-- Queue messages, one array per column; whoever calls says what a second delivery of an event means.
INSERT INTO webhook_deliveries
    (endpoint, message, kind, event, body, is_urgent, at_us, deadline_us, next_attempt_at_us)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bytea[], $6::boolean[], $7::bigint[],
    $8::bigint[], $9::bigint[])
