-- Telemetry: the registry, readings and what is made of them. docs/decisions/0010-telemetry.md.
--
-- The org stands first in every key. Times are milliseconds since 1970 UTC.

-- A key that may write for one device alone; NULL: for any.
ALTER TABLE keys ADD COLUMN device BLOB;

-- The registry. Numbers are names that are never shown; a number is never used twice while rows point to it.
CREATE TABLE projects (
    number INTEGER PRIMARY KEY,
    org INTEGER NOT NULL REFERENCES orgs (number),
    id BLOB NOT NULL,                  -- 16 bytes, as in all tables below
    name TEXT NOT NULL,
    description TEXT,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    UNIQUE (org, id),
    UNIQUE (org, name)
) STRICT;

CREATE TABLE sites (
    number INTEGER PRIMARY KEY,
    org INTEGER NOT NULL REFERENCES orgs (number),
    id BLOB NOT NULL,
    project INTEGER NOT NULL REFERENCES projects (number),
    name TEXT NOT NULL,
    location TEXT,                     -- JSON
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    UNIQUE (org, id),
    UNIQUE (org, project, name)
) STRICT;

CREATE TABLE devices (
    number INTEGER PRIMARY KEY,
    org INTEGER NOT NULL REFERENCES orgs (number),
    id BLOB NOT NULL,
    site INTEGER NOT NULL REFERENCES sites (number),
    name TEXT NOT NULL,
    device_type TEXT,
    external_id TEXT,                  -- the device_code of CSV files
    status TEXT NOT NULL,
    interval_s INTEGER NOT NULL,       -- a packet is expected this often
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    UNIQUE (org, id),
    UNIQUE (org, external_id),
    UNIQUE (org, site, name)
) STRICT;

CREATE TABLE parameters (
    number INTEGER PRIMARY KEY,
    org INTEGER NOT NULL REFERENCES orgs (number),
    id BLOB NOT NULL,
    project INTEGER NOT NULL REFERENCES projects (number),
    name TEXT NOT NULL,
    name_key TEXT NOT NULL,            -- the name in snake case: the last part of the key
    key TEXT NOT NULL,                 -- project:<project id>:<name_key>
    unit TEXT,
    dtype TEXT NOT NULL,
    min_value REAL,
    max_value REAL,
    policy TEXT NOT NULL,              -- reject, clamp, flag: of what is outside
    required INTEGER NOT NULL,
    description TEXT,
    frequency_s INTEGER,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    UNIQUE (org, id),
    UNIQUE (org, project, name_key)
) STRICT;

CREATE TABLE registry_versions (
    org INTEGER NOT NULL,
    project INTEGER NOT NULL,
    version INTEGER NOT NULL,
    checksum TEXT NOT NULL,            -- SHA-256 of config, in hexadecimal digits
    author INTEGER NOT NULL,           -- number of the key that published it
    config TEXT NOT NULL,              -- JSON
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (org, project, version)
) STRICT, WITHOUT ROWID;

-- One parameter of one device.
CREATE TABLE series (
    number INTEGER PRIMARY KEY,
    org INTEGER NOT NULL,
    device INTEGER NOT NULL,
    parameter INTEGER NOT NULL,
    UNIQUE (org, device, parameter)
) STRICT;
CREATE INDEX series_by_parameter ON series (org, parameter, device);

-- The key is (device, parameter, time). A row is replaced by one of an equal or higher position, never by a
-- lower one, so that the order in which an upload's parts are applied does not matter.
CREATE TABLE readings (
    org INTEGER NOT NULL,
    series INTEGER NOT NULL,
    time_ms INTEGER NOT NULL,          -- as the device says
    value REAL,                        -- NULL: the device had none
    quality INTEGER,
    flags INTEGER NOT NULL,            -- 1 out of range, 2 clamped to it, 4 came late
    source TEXT,                       -- protocol
    event_id TEXT,
    attributes TEXT,                   -- JSON object
    received_ms INTEGER NOT NULL,      -- when the first of this key came
    position INTEGER NOT NULL,
    PRIMARY KEY (org, series, time_ms)
) STRICT, WITHOUT ROWID;

-- Sums of 1m, 5m, 1h and 1d, each computed anew from what lies below it.
CREATE TABLE rollups (
    org INTEGER NOT NULL,
    series INTEGER NOT NULL,
    width_ms INTEGER NOT NULL,
    start_ms INTEGER NOT NULL,
    count INTEGER NOT NULL,
    sum REAL NOT NULL,
    min REAL NOT NULL,
    max REAL NOT NULL,
    last REAL NOT NULL,
    PRIMARY KEY (org, series, width_ms, start_ms)
) STRICT, WITHOUT ROWID;

-- Minutes whose roll-ups are to be computed anew.
CREATE TABLE rollup_dirty (
    org INTEGER NOT NULL,
    series INTEGER NOT NULL,
    start_ms INTEGER NOT NULL,
    PRIMARY KEY (org, series, start_ms)
) STRICT, WITHOUT ROWID;

-- When a device was last heard of; there is no row before the first time.
CREATE TABLE device_states (
    org INTEGER NOT NULL,
    device INTEGER NOT NULL,
    last_received_ms INTEGER NOT NULL,
    last_time_ms INTEGER NOT NULL,
    due_ms INTEGER NOT NULL,           -- silent from then on
    silent_ms INTEGER NOT NULL,        -- when it was found to be silent; 0: it is not
    PRIMARY KEY (org, device)
) STRICT, WITHOUT ROWID;
CREATE INDEX device_states_due ON device_states (due_ms) WHERE silent_ms = 0;
