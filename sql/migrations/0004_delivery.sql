-- Delivery: how long a node may take to start a lease, whether it is alive, which GPUs it may not lend.

ALTER TABLE markets
    ADD COLUMN provisioning_seconds integer NOT NULL DEFAULT 600,
    ADD CONSTRAINT markets_provisioning CHECK (provisioning_seconds BETWEEN 1 AND 7200);

ALTER TABLE nodes
    ADD COLUMN health text NOT NULL DEFAULT 'ok',
    ADD COLUMN alive_until_us bigint,
    ADD COLUMN fenced smallint[] NOT NULL DEFAULT '{}',
    ADD CONSTRAINT nodes_health_known CHECK (health IN ('ok', 'degraded', 'offline')),
    -- Whoever is not well has a last sign of life: nothing after it is billed.
    ADD CONSTRAINT nodes_last_sign_of_life CHECK ((health = 'ok') = (alive_until_us IS NULL));

ALTER TABLE leases ADD COLUMN start_by_us bigint;
CREATE INDEX leases_by_node_time ON leases (node, awarded_at_us);
