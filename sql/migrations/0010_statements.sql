-- Statements: where a month begins in the ledger. Ids grow with time, so two look-ups bound every leg of it.

CREATE INDEX transfers_by_time ON transfers (at_us, id);
