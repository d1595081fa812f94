-- Readings by month, and what people and SCADA systems read them by. docs/decisions/0010-telemetry.md.

-- Readings of the org before this time are gone for good: no query shows them, none is taken any more, and their
-- rows go when there is time. NULL: nothing went yet.
ALTER TABLE orgs ADD COLUMN readings_from_ms bigint;
ALTER TABLE orgs ADD COLUMN readings_days bigint;      -- NULL: for ever; the same for the next two
ALTER TABLE orgs ADD COLUMN rollups_days bigint;
ALTER TABLE orgs ADD COLUMN dead_letters_days bigint;

-- A month each, made ahead and as readings come, dropped whole. With Citus: distribute by org, which is in the key.
ALTER TABLE readings RENAME TO readings_before;
ALTER TABLE readings_before RENAME CONSTRAINT readings_pkey TO readings_before_pkey;
CREATE TABLE readings (
    org bigint NOT NULL,
    series bigint NOT NULL,
    time_ms bigint NOT NULL,
    value double precision,
    quality bigint,
    flags bigint NOT NULL,
    source text COLLATE "C",
    event_id text COLLATE "C",
    attributes text COLLATE "C",
    received_ms bigint NOT NULL,
    position bigint NOT NULL,
    PRIMARY KEY (org, series, time_ms)
) PARTITION BY RANGE (time_ms);

-- Which part holds which times: from start_ms, below end_ms.
CREATE TABLE reading_months (
    start_ms bigint PRIMARY KEY,
    end_ms bigint NOT NULL,
    name text COLLATE "C" NOT NULL
);

-- What stood there is one part, up to the end of the month of its newest reading: nothing is copied.
DO $$
DECLARE
    bound bigint;
BEGIN
    SELECT (extract(epoch FROM date_trunc('month', to_timestamp(max(time_ms) / 1000.0) AT TIME ZONE 'UTC')
                               + interval '1 month') * 1000)::bigint
        INTO bound FROM readings_before;
    IF bound IS NULL THEN
        DROP TABLE readings_before;
    ELSE
        EXECUTE format('ALTER TABLE readings ATTACH PARTITION readings_before FOR VALUES FROM (MINVALUE) TO (%s)',
                       bound);
        INSERT INTO reading_months VALUES (-9223372036854775808, bound, 'readings_before');
    END IF;
END
$$;

-- The newest reading of each device and parameter.
CREATE VIEW v_scada_latest_readable AS
    SELECT o.name AS customer, g.name AS project, t.name AS site, d.name AS device_name,
        d.external_id AS device_code, d.device_type, p.name AS parameter_name, p.key AS parameter_key, p.unit,
        to_timestamp(r.time_ms / 1000.0) AS "timestamp", r.value, r.quality, r.source,
        encode(o.id, 'hex')::uuid AS customer_id, encode(g.id, 'hex')::uuid AS project_id,
        encode(t.id, 'hex')::uuid AS site_id, encode(d.id, 'hex')::uuid AS device_id
    FROM series s
    JOIN devices d ON d.number = s.device
    JOIN parameters p ON p.number = s.parameter
    JOIN sites t ON t.number = d.site
    JOIN projects g ON g.number = t.project
    JOIN orgs o ON o.number = s.org
    JOIN readings r ON r.org = s.org AND r.series = s.number
        AND r.time_ms = (SELECT max(n.time_ms) FROM readings n WHERE n.org = s.org AND n.series = s.number)
    WHERE o.readings_from_ms IS NULL OR r.time_ms >= o.readings_from_ms;
CREATE VIEW v_scada_latest AS
    SELECT device_id, parameter_key, "timestamp" AS time, value, quality, customer_id FROM v_scada_latest_readable;

-- Every reading. Bound it by customer_id, device_id or time.
CREATE VIEW v_scada_history_readable AS
    SELECT o.name AS customer, g.name AS project, t.name AS site, d.name AS device_name,
        d.external_id AS device_code, d.device_type, p.name AS parameter_name, p.key AS parameter_key, p.unit,
        to_timestamp(r.time_ms / 1000.0) AS "timestamp", r.value, r.quality, r.source,
        encode(o.id, 'hex')::uuid AS customer_id, encode(g.id, 'hex')::uuid AS project_id,
        encode(t.id, 'hex')::uuid AS site_id, encode(d.id, 'hex')::uuid AS device_id, r.time_ms
    FROM series s
    JOIN devices d ON d.number = s.device
    JOIN parameters p ON p.number = s.parameter
    JOIN sites t ON t.number = d.site
    JOIN projects g ON g.number = t.project
    JOIN orgs o ON o.number = s.org
    JOIN readings r ON r.org = s.org AND r.series = s.number
    WHERE o.readings_from_ms IS NULL OR r.time_ms >= o.readings_from_ms;
CREATE VIEW v_scada_history AS
    SELECT "timestamp" AS time, device_id, parameter_key, value, quality, source, customer_id, time_ms
    FROM v_scada_history_readable;

-- Packets of the last hour of each active device, by the rules of docs/decisions/0010-telemetry.md.
CREATE VIEW v_packet_health AS
    WITH hour AS (SELECT (extract(epoch FROM now()) * 1000)::bigint AS now_ms),
    packets AS (
        SELECT s.org, s.device, r.time_ms, min(r.received_ms) AS first_ms
        FROM series s JOIN readings r ON r.org = s.org AND r.series = s.number
        WHERE r.time_ms >= (SELECT now_ms FROM hour) - 3600000 AND r.time_ms < (SELECT now_ms FROM hour)
        GROUP BY s.org, s.device, r.time_ms
    ),
    counted AS (
        SELECT d.org, d.number, o.name AS customer, o.id AS customer_id, g.name AS project, t.name AS site,
            t.id AS site_id, d.name AS device_name, d.external_id AS device_code, d.id AS device_id, d.interval_s,
            3600 / d.interval_s AS expected, count(k.time_ms) AS received,
            sum(CASE WHEN k.first_ms - k.time_ms > 1000 * coalesce(o.late_s, 2 * d.interval_s)
                THEN 1 ELSE 0 END)::bigint AS late,
            e.last_time_ms, (SELECT now_ms FROM hour) - coalesce(e.last_time_ms, 0) AS age_ms
        FROM devices d
        JOIN sites t ON t.number = d.site
        JOIN projects g ON g.number = t.project
        JOIN orgs o ON o.number = d.org
        LEFT JOIN device_states e ON e.org = d.org AND e.device = d.number
        LEFT JOIN packets k ON k.org = d.org AND k.device = d.number
        WHERE d.status = 'active'
        GROUP BY d.org, d.number, o.number, g.number, t.number, e.org, e.device
    )
    SELECT customer, project, site, device_name, device_code, expected, received,
        greatest(0, expected - received) AS missing, late,
        CASE WHEN expected = 0 THEN 100.0 ELSE least(100.0, 100.0 * (received - late) / expected) END
            AS on_time_percent,
        CASE WHEN last_time_ms > 0 THEN to_timestamp(last_time_ms / 1000.0) END AS last_time,
        received = 0 AS silent,
        CASE WHEN expected - received > 5 OR age_ms > 3000 * interval_s THEN 'CRITICAL'
            WHEN expected - received > 1 OR age_ms >= 2000 * interval_s THEN 'WARNING'
            ELSE 'OK' END AS status,
        encode(customer_id, 'hex')::uuid AS customer_id, encode(site_id, 'hex')::uuid AS site_id,
        encode(device_id, 'hex')::uuid AS device_id
    FROM counted;
