-- every tick follows the one before it: next number, that one's digest; the first the market's genesis
SELECT market, tick, previous_tick, previous_digest, expected_digest,
    tick <> coalesce(previous_tick + 1, tick) OR previous_digest <> expected_digest AS is_bad
FROM (
    SELECT market, tick, previous_digest, lag(tick) OVER chain AS previous_tick,
        coalesce(
            lag(digest) OVER chain, encode(sha256(convert_to('fallow:' || market, 'UTF8')), 'hex')
        ) AS expected_digest
    FROM ticks WINDOW chain AS (PARTITION BY market ORDER BY tick)
) linked
