-- After a change of the org's settings: up to which device (its number) it has followed from them when
-- devices fall silent. NULL: they all did.
ALTER TABLE orgs ADD COLUMN due_after bigint;
CREATE INDEX orgs_due ON orgs (number) WHERE due_after IS NOT NULL;
