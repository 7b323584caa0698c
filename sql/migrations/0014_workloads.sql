-- What a bid's node is to run, by content: many bids of one payload store it once. Nothing here is part of
-- the auction.

CREATE TABLE workloads (
    account text NOT NULL REFERENCES accounts,
    digest  text NOT NULL,
    content bytea NOT NULL,
    PRIMARY KEY (account, digest),
    CONSTRAINT workloads_content CHECK (digest = encode(sha256(content), 'hex') AND octet_length(content) <= 16384)
);

ALTER TABLE bids
    ADD COLUMN workload text,
    ADD CONSTRAINT bids_workload FOREIGN KEY (account, workload) REFERENCES workloads;
