-- How bids and leases end by the clock: time in force, expiry, the last tick, run time, spending cap.

ALTER TABLE accounts
    ADD COLUMN cancel_at_us bigint,
    ADD COLUMN cancel_releases boolean NOT NULL DEFAULT false;

ALTER TABLE bids
    ADD COLUMN time_in_force text NOT NULL DEFAULT 'gtc',
    ADD COLUMN expires_at_us bigint,
    ADD COLUMN valid_until_tick bigint,
    ADD COLUMN max_run_seconds integer,
    ADD COLUMN max_spend bigint,
    ADD COLUMN on_preempt text NOT NULL DEFAULT 'requeue',
    ADD COLUMN has_lapsed boolean NOT NULL DEFAULT false,
    DROP CONSTRAINT bids_status_known,
    DROP CONSTRAINT bids_final_hold_released,
    ADD CONSTRAINT bids_status_known CHECK (status IN
        ('open', 'partial', 'filled', 'preempting', 'paused', 'cancelled', 'exhausted', 'expired')),
    ADD CONSTRAINT bids_final_hold_released
        CHECK (status NOT IN ('cancelled', 'exhausted', 'expired') OR held = 0 OR filled_gpus > 0),
    ADD CONSTRAINT bids_time_in_force_known CHECK (time_in_force IN ('gtc', 'gtt', 'ioc')),
    ADD CONSTRAINT bids_on_preempt_known CHECK (on_preempt IN ('requeue', 'cancel')),
    ADD CONSTRAINT bids_expiry CHECK ((time_in_force = 'gtt') = (expires_at_us IS NOT NULL)),
    ADD CONSTRAINT bids_run_positive CHECK (max_run_seconds > 0),
    -- The cap is never passed, not by what is spent and not by what is held (bids.max_spend).
    ADD CONSTRAINT bids_max_spend_kept CHECK (spent + held <= max_spend);

DROP INDEX bids_live;
CREATE INDEX bids_live ON bids (market) WHERE status NOT IN ('cancelled', 'exhausted', 'expired');

ALTER TABLE leases ADD COLUMN ends_at_us bigint;
