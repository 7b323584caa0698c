-- With every tick the curve of $3 ticks before goes.
DELETE FROM curves c USING unnest($1::text[], $2::bigint[]) AS n(market, tick)
WHERE c.market = n.market AND c.tick = n.tick - $3
