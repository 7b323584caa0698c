-- One tick's curve comes, the one $5 ticks before it goes.
WITH old AS (
    DELETE FROM curves c USING unnest($1::text[], $2::bigint[]) AS n(market, tick)
    WHERE c.market = n.market AND c.tick = n.tick - $5
)
INSERT INTO curves (market, tick, demand, supply)
SELECT n.market, n.tick, n.demand::jsonb, n.supply::jsonb
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[]) AS n(market, tick, demand, supply)
