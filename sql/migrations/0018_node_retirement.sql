-- A node that its owner takes out of the market for good is kept for its leases' sake; its name is free again.

ALTER TABLE nodes
    DROP CONSTRAINT nodes_state_known,
    DROP CONSTRAINT nodes_name_unique,
    ADD CONSTRAINT nodes_state_known CHECK (state IN ('enrolling', 'online', 'cordoned', 'retired'));
CREATE UNIQUE INDEX nodes_name_unique ON nodes (account, name) WHERE state <> 'retired';
