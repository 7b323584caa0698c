-- Bids that take their GPUs in any of several markets (RULES.md X3): what they named, in their order. `market`,
-- `limit_price` and the arrival are those of the market that the bid is in now, which is one of them.

ALTER TABLE bids
    ADD COLUMN alternatives jsonb NOT NULL DEFAULT '[]',
    ADD CONSTRAINT bids_alternatives_named CHECK (
        alternatives = '[]'
        OR jsonb_array_length(alternatives) <= 8
            AND alternatives @> jsonb_build_array(jsonb_build_object('market', market, 'limit', limit_price))
    );
