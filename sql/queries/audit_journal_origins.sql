-- the commands that placed a bid or posted an offer, with the terms it began with
SELECT at_us, payload FROM journal
WHERE position('PlaceBid'::bytea IN payload) > 0 OR position('CreateOffer'::bytea IN payload) > 0
ORDER BY shard_id, seq
