-- Supply and demand as each tick cleared them: what the clearing price came from, so that it can be looked at later.
-- Public and anonymous, as the curve of the moment is. Kept for a number of ticks (sql/queries/forget_curves.sql).

CREATE TABLE curves (
    market text NOT NULL,
    tick   bigint NOT NULL,
    demand jsonb NOT NULL, -- [[price in microusd per GPU-hour, GPUs at or above it], ...], highest first
    supply jsonb NOT NULL, -- [[gross reserve, GPUs at or below it], ...], lowest first
    CONSTRAINT curves_pkey PRIMARY KEY (market, tick)
);
GRANT SELECT ON curves TO fallow_api, fallow_engine, fallow_auditor;
GRANT INSERT, DELETE ON curves TO fallow_engine;
