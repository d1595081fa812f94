-- What one node at a time does: whose it is, and until when by the database's clock.
CREATE TABLE leases (
    name text COLLATE "C" PRIMARY KEY,
    holder bigint NOT NULL,
    until_ms bigint NOT NULL
) WITH (fillfactor = 50);
