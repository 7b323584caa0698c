-- The quantile $4 of a market's prices since $2, of ticks that traded; null when fewer than $3 did.
SELECT CASE WHEN count(*) >= $3 THEN percentile_disc($4::double precision) WITHIN GROUP (ORDER BY price) END AS price
FROM ticks WHERE market = $1 AND cleared_at_us >= $2 AND price IS NOT NULL
