-- What the bids of an account, or (with $2) of one of its keys, have in the market now.
SELECT
    coalesce(sum(greatest(limit_price, (SELECT max((a ->> 'limit')::bigint) FROM jsonb_array_elements(alternatives) a))
        * CASE WHEN is_paused THEN filled_gpus ELSE gpus END)
        FILTER (WHERE status NOT IN ('cancelled', 'exhausted', 'expired', 'rejected')), 0)::bigint AS notional,
    coalesce(sum(held), 0)::bigint AS held
FROM bids
WHERE account = $1 AND ($2::text IS NULL OR key = $2)
    AND (status NOT IN ('cancelled', 'exhausted', 'expired', 'rejected') OR held > 0)
