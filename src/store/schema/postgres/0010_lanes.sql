-- The lanes of a journal among appliers: the cursor's row is the lease, until until_ms by the clock of
-- this database; holder 0: nobody's. docs/decisions/0017-lanes.md.
ALTER TABLE cursors ADD COLUMN holder bigint NOT NULL DEFAULT 0;
ALTER TABLE cursors ADD COLUMN until_ms bigint NOT NULL DEFAULT 0;

-- Who shares them.
CREATE TABLE appliers (
    journal bytea NOT NULL,
    holder bigint NOT NULL,
    until_ms bigint NOT NULL,
    PRIMARY KEY (journal, holder)
);
