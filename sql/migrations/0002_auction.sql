-- The auction in full: co-location, thin markets, the place of the price, welfare and its bound per tick.

ALTER TABLE markets
    ADD COLUMN refine_below_bids integer NOT NULL DEFAULT 200,
    ADD COLUMN price_position_bps integer,
    ADD CONSTRAINT markets_auction_bounds
        CHECK (refine_below_bids BETWEEN 0 AND 10000 AND (price_position_bps BETWEEN 0 AND 10000));

ALTER TABLE nodes ADD COLUMN fabric text;

ALTER TABLE bids
    ADD COLUMN colocate text NOT NULL DEFAULT 'none',
    ADD COLUMN awaits_outcome boolean NOT NULL DEFAULT true,
    ADD CONSTRAINT bids_colocate_known CHECK (colocate IN ('none', 'node', 'fabric')),
    -- A co-located bid is all or nothing, in the sizes of the chain (RULES.md X1).
    ADD CONSTRAINT bids_colocate_chain CHECK (colocate = 'none' OR gpus = 0
        OR (min_gpus = gpus AND gpus IN (1, 2, 4, 8, 16, 32, 64)));

ALTER TABLE ticks
    ADD COLUMN idle_fragmented_gpus integer NOT NULL DEFAULT 0,
    ADD COLUMN welfare bigint NOT NULL DEFAULT 0,
    ADD COLUMN welfare_bound bigint NOT NULL DEFAULT 0,
    ADD CONSTRAINT ticks_welfare_bounded CHECK (welfare <= welfare_bound);
