-- The lanes of a journal among appliers; here one applier has all of them, and these stay as they are.
ALTER TABLE cursors ADD COLUMN holder INTEGER NOT NULL DEFAULT 0;
ALTER TABLE cursors ADD COLUMN until_ms INTEGER NOT NULL DEFAULT 0;

CREATE TABLE appliers (
    journal BLOB NOT NULL,
    holder INTEGER NOT NULL,
    until_ms INTEGER NOT NULL,
    PRIMARY KEY (journal, holder)
) STRICT, WITHOUT ROWID;
