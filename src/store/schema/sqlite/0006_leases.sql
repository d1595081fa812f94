-- What one node at a time does: whose it is, and until when by the database's clock.
CREATE TABLE leases (
    name TEXT PRIMARY KEY,
    holder INTEGER NOT NULL,
    until_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
