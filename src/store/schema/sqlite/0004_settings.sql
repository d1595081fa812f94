-- What an org has set (JSON, every member there); NULL: nothing yet.
ALTER TABLE orgs ADD COLUMN settings TEXT;
