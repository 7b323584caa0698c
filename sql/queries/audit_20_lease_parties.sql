-- every lease agrees with its bid, its offer and its node on who, where and in which market
SELECT l.id AS lease, l.account, l.owner, l.market, l.node,
    l.account IS DISTINCT FROM b.account
        OR (l.market IS DISTINCT FROM b.market
            -- A bid with alternatives may have gone on to another market since the lease ended.
            AND NOT (l.state = 'ended' AND b.alternatives @> jsonb_build_array(jsonb_build_object('market', l.market))))
        OR (l.owner, l.market, l.node) IS DISTINCT FROM (o.account, o.market, o.node)
        OR (l.owner, l.market) IS DISTINCT FROM (n.account, n.market) AS is_bad
FROM leases l
LEFT JOIN bids b ON b.id = l.bid
LEFT JOIN offers o ON o.id = l.offer
LEFT JOIN nodes n ON n.id = l.node
