-- Those of an org's settings that SQL needs, beside the JSON that holds all of them; NULL: not set.
ALTER TABLE orgs ADD COLUMN silence_hours INTEGER;  -- 0: never
ALTER TABLE orgs ADD COLUMN late_s INTEGER;
ALTER TABLE orgs ADD COLUMN raw_days INTEGER;
ALTER TABLE orgs ADD COLUMN events_days INTEGER;
