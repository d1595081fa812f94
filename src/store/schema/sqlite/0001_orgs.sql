-- Orgs, their keys, the audit and the program's own secrets.
-- Times are milliseconds since 1970 UTC. Rows of orgs and keys are never deleted, so a number
-- names the same org or key for ever.

CREATE TABLE orgs (
    number INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,                  -- uuid, 16 bytes
    name TEXT NOT NULL UNIQUE,
    tier TEXT NOT NULL,
    id_key BLOB NOT NULL,                     -- 32 random bytes, never changed
    mb_per_hour INTEGER,                      -- NULL: the setting; 0: no limit
    created_ms INTEGER NOT NULL,
    data_version INTEGER NOT NULL DEFAULT 0,  -- rises with each change that an answer can show
    last_sequence INTEGER NOT NULL DEFAULT 0  -- of the org's newest record
) STRICT;

CREATE TABLE keys (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,                  -- the 16 characters after "weir_"
    org INTEGER NOT NULL REFERENCES orgs (number),
    name TEXT NOT NULL,
    hash TEXT NOT NULL,                       -- Argon2id of the secret, with its parameters
    scopes INTEGER NOT NULL,                  -- set of bits: 1 read, 2 write, 4 admin; narrowed ones above
    requests_per_minute INTEGER NOT NULL,     -- of this key alone; 0: the org's limit alone
    mb_per_hour INTEGER NOT NULL,             -- of this key alone; 0: the org's limit alone
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,              -- 0: never
    revoked_ms INTEGER NOT NULL DEFAULT 0,    -- 0: live
    last_used_ms INTEGER NOT NULL DEFAULT 0   -- to the minute; 0: never
) STRICT;
CREATE INDEX keys_by_org ON keys (org, number);

CREATE TABLE audit (
    number INTEGER PRIMARY KEY,
    time_ms INTEGER NOT NULL,                 -- of a failed check: the start of its minute
    org INTEGER NOT NULL,                     -- 0: none
    key INTEGER NOT NULL,                     -- 0: the operator, or nobody
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    address TEXT NOT NULL,
    count INTEGER NOT NULL
) STRICT;
CREATE INDEX audit_by_org ON audit (org, number);
CREATE UNIQUE INDEX audit_failed ON audit (time_ms, target, address) WHERE action = 'auth.failed';

CREATE TABLE secrets (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;
