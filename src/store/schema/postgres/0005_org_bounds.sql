-- Those of an org's settings that SQL needs, beside the JSON that holds all of them; NULL: not set.
ALTER TABLE orgs ADD COLUMN silence_hours bigint;  -- 0: never
ALTER TABLE orgs ADD COLUMN late_s bigint;
ALTER TABLE orgs ADD COLUMN raw_days bigint;
ALTER TABLE orgs ADD COLUMN events_days bigint;
