-- every bid has spent what its leases settled
SELECT b.id AS bid, b.spent, coalesce(l.settled, 0) AS settled, b.spent <> coalesce(l.settled, 0) AS is_bad
FROM bids b
LEFT JOIN (SELECT bid, sum(settled) AS settled FROM leases GROUP BY bid) l ON l.bid = b.id
