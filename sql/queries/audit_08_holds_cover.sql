-- every bid's hold covers what its leases were metered for and not yet charged
SELECT b.id AS bid, b.status, b.held, coalesce(l.due, 0) AS due, b.held < coalesce(l.due, 0) AS is_bad
FROM bids b
LEFT JOIN (
    -- Of all leases: an ended one owes nothing, which leases_ended_settled sees to.
    SELECT bid, sum(metered - settled) AS due FROM leases GROUP BY bid
) l ON l.bid = b.id
