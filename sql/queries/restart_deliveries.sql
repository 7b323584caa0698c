-- Behind insert_deliveries: an event that was told or given up is told again, one that is waiting goes on.
ON CONFLICT (endpoint, event) DO UPDATE
SET state = 'pending', attempts = 0, is_urgent = excluded.is_urgent, deadline_us = excluded.deadline_us,
    next_attempt_at_us = excluded.next_attempt_at_us
WHERE webhook_deliveries.state <> 'pending'
