-- A bid on which a rule of the market fails ends as rejected (FAULTS.md F26).

ALTER TABLE bids
    DROP CONSTRAINT bids_status_known,
    DROP CONSTRAINT bids_final_hold_released,
    ADD CONSTRAINT bids_status_known CHECK (status IN ('open', 'partial', 'filled', 'preempting', 'paused',
        'cancelled', 'exhausted', 'expired', 'rejected')),
    ADD CONSTRAINT bids_final_hold_released CHECK (status NOT IN ('cancelled', 'exhausted', 'expired', 'rejected')
        OR held = 0 OR filled_gpus > 0);

DROP INDEX bids_live;
CREATE INDEX bids_live ON bids (market) WHERE status NOT IN ('cancelled', 'exhausted', 'expired', 'rejected');

DROP INDEX bids_live_by_key;
CREATE INDEX bids_live_by_key ON bids (key)
    WHERE key IS NOT NULL AND status NOT IN ('cancelled', 'exhausted', 'expired', 'rejected');
