-- What the journal's frames mean. docs/decisions/0002-event-schema.md has the measurements.
--
-- Every row here is written by apply, in the transaction that moves its cursor, so its content is in
-- the journal until a checkpoint. Times are milliseconds since 1970 UTC.

-- sequence = org << 40 | number, counted per org by orgs.last_sequence: an org's rows lie together, in
-- its own commit order. Rows are appended and never updated. Numbers may have gaps (duplicates).
CREATE TABLE events (
    sequence INTEGER PRIMARY KEY,
    id BLOB NOT NULL,              -- 16 bytes
    position INTEGER NOT NULL,     -- of the frame in the journal
    type TEXT NOT NULL,
    subject TEXT,
    source TEXT,
    app TEXT,
    dedup_id TEXT,
    payload TEXT NOT NULL,         -- one JSON value, as it came
    attributes TEXT,               -- JSON object of what else came
    occurred_ms INTEGER NOT NULL,
    created_ms INTEGER NOT NULL    -- when it was accepted
) STRICT;
-- The sequence is the last column of each index, so "type = $1 AND sequence BETWEEN $2 AND $3" is one
-- range, newest first or oldest first.
CREATE INDEX events_type ON events (type);
CREATE INDEX events_app ON events (app) WHERE app IS NOT NULL;

-- The place of an id, and what makes a second one with the same id a duplicate. A table of its own, so
-- that random ids are inserted in their own order, which touches each page once a batch.
CREATE TABLE event_ids (
    id BLOB PRIMARY KEY,
    sequence INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The events of a subject: key is a hash of org and subject, so the subject itself is compared too. A
-- table of its own for the same reason: subjects are many.
CREATE TABLE event_subjects (
    key INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    PRIMARY KEY (key, sequence)
) STRICT, WITHOUT ROWID;

-- Which sequences were accepted (events.created_ms) in an hour: turns start and end into a range of
-- sequences, also when the clock was stepped and ranges overlap.
CREATE TABLE event_hours (
    org INTEGER NOT NULL,
    hour INTEGER NOT NULL,         -- created_ms / 3600000
    first_sequence INTEGER NOT NULL,
    last_sequence INTEGER NOT NULL,
    PRIMARY KEY (org, hour)
) STRICT, WITHOUT ROWID;

-- Acknowledged events as ranges of sequences that neither touch nor overlap. An event costs nothing
-- here until it is acknowledged, and a reader of the inbox skips a range in one step.
CREATE TABLE event_acks (
    first_sequence INTEGER PRIMARY KEY,
    last_sequence INTEGER NOT NULL
) STRICT;

-- Journals that this store has met. position = base + number within the journal.
CREATE TABLE journals (
    id BLOB PRIMARY KEY,
    base INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Everything up to position is applied. lane 64: all lanes together.
CREATE TABLE cursors (
    journal BLOB NOT NULL,
    lane INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (journal, lane)
) STRICT, WITHOUT ROWID;

CREATE TABLE uploads (
    id BLOB PRIMARY KEY,
    org INTEGER NOT NULL,
    key INTEGER NOT NULL,
    position INTEGER NOT NULL,     -- of its end record; the order of a list
    form INTEGER NOT NULL,
    state INTEGER NOT NULL,        -- 1 applying, 2 processed, 3 partial, 4 failed
    head BLOB NOT NULL,            -- head of its frame
    decoded_bytes INTEGER NOT NULL,
    stored_bytes INTEGER NOT NULL,
    element_count INTEGER NOT NULL,
    accepted_count INTEGER NOT NULL,
    rejected_count INTEGER NOT NULL,
    slice_count INTEGER NOT NULL,
    slices_done INTEGER NOT NULL DEFAULT 0,
    applied_count INTEGER NOT NULL DEFAULT 0,   -- inserted + duplicates + refused
    inserted_count INTEGER NOT NULL DEFAULT 0,
    duplicate_count INTEGER NOT NULL DEFAULT 0,
    conflict_count INTEGER NOT NULL DEFAULT 0,
    refused_count INTEGER NOT NULL DEFAULT 0,
    errors TEXT,                   -- JSON array of the first rejected elements
    received_ms INTEGER NOT NULL,
    finished_ms INTEGER,
    raw_deleted INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX uploads_list ON uploads (org, position);
CREATE INDEX uploads_open ON uploads (position) WHERE state = 1;
CREATE INDEX uploads_kept ON uploads (finished_ms) WHERE state <> 1 AND raw_deleted = 0;

-- The parts of an upload that is being applied; gone when all are done. A slice belongs to its holder
-- until lease_until_ms; `done_count` is its cursor.
CREATE TABLE upload_slices (
    upload BLOB NOT NULL,
    number INTEGER NOT NULL,
    byte_offset INTEGER NOT NULL,
    first_index INTEGER NOT NULL,
    element_count INTEGER NOT NULL,
    done_count INTEGER NOT NULL DEFAULT 0,
    holder INTEGER,
    lease_until_ms INTEGER,
    PRIMARY KEY (upload, number)
) STRICT, WITHOUT ROWID;

-- Records given up, with their reason.
CREATE TABLE dead_letters (
    number INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,       -- of the record, else of its frame
    org INTEGER NOT NULL,
    kind TEXT NOT NULL,            -- event, frame
    reason TEXT NOT NULL,          -- refused, unreadable
    detail TEXT,
    position INTEGER NOT NULL,
    element INTEGER NOT NULL,      -- its number in the frame or upload
    form INTEGER NOT NULL,         -- how `record` is to be read
    record BLOB NOT NULL,
    received_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX dead_letters_list ON dead_letters (org, number);
