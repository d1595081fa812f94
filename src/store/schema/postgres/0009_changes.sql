-- What nodes hold in memory: keys, with their orgs' limits. A change raises the version, in its own
-- transaction, and is told with it; who listens and finds a version missing drops all it holds.
CREATE TABLE changes (
    name text COLLATE "C" PRIMARY KEY,
    version bigint NOT NULL
) WITH (fillfactor = 50);
INSERT INTO changes (name, version) VALUES ('gate', 0);

-- Versions are told in the order of their commits: the row stays locked until then.
CREATE FUNCTION weir_changed() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS $$
DECLARE
    raised bigint;
BEGIN
    UPDATE changes SET version = version + 1 WHERE name = 'gate' RETURNING version INTO raised;
    PERFORM pg_notify(left('weir.' || TG_TABLE_SCHEMA, 63),
                      TG_ARGV[0] || ' ' || raised || ' ' || coalesce(NEW.number, 0));
    RETURN NULL;
END $$;

CREATE TRIGGER keys_made AFTER INSERT ON keys FOR EACH STATEMENT EXECUTE FUNCTION weir_changed('keys');
CREATE TRIGGER keys_changed AFTER UPDATE OF org, hash, scopes, requests_per_minute, mb_per_hour,
    expires_ms, revoked_ms, device ON keys
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION weir_changed('key');
CREATE TRIGGER orgs_changed AFTER UPDATE OF tier, mb_per_hour ON orgs
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION weir_changed('org');
