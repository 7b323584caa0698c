-- Keep the curves that these ticks cleared.
INSERT INTO curves (market, tick, demand, supply)
SELECT n.market, n.tick, n.demand::jsonb, n.supply::jsonb
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[]) AS n(market, tick, demand, supply)
