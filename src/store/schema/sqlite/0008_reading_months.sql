-- Readings by age, and what people and SCADA systems read them by. docs/decisions/0010-telemetry.md.

-- Readings of the org before this time are gone for good: no query shows them, none is taken any more, and their
-- rows go when there is time. NULL: nothing went yet.
ALTER TABLE orgs ADD COLUMN readings_from_ms INTEGER;
ALTER TABLE orgs ADD COLUMN readings_days INTEGER;      -- NULL: for ever; the same for the next two
ALTER TABLE orgs ADD COLUMN rollups_days INTEGER;
ALTER TABLE orgs ADD COLUMN dead_letters_days INTEGER;

-- The newest reading of each device and parameter.
CREATE VIEW v_scada_latest_readable AS
    SELECT o.name AS customer, g.name AS project, t.name AS site, d.name AS device_name,
        d.external_id AS device_code, d.device_type, p.name AS parameter_name, p.key AS parameter_key, p.unit,
        strftime('%Y-%m-%dT%H:%M:', r.time_ms / 1000, 'unixepoch')
            || printf('%06.3fZ', (r.time_ms % 60000) / 1000.0) AS "timestamp",
        r.value, r.quality, r.source,
        lower(substr(hex(o.id), 1, 8) || '-' || substr(hex(o.id), 9, 4) || '-' || substr(hex(o.id), 13, 4)
            || '-' || substr(hex(o.id), 17, 4) || '-' || substr(hex(o.id), 21)) AS customer_id,
        lower(substr(hex(g.id), 1, 8) || '-' || substr(hex(g.id), 9, 4) || '-' || substr(hex(g.id), 13, 4)
            || '-' || substr(hex(g.id), 17, 4) || '-' || substr(hex(g.id), 21)) AS project_id,
        lower(substr(hex(t.id), 1, 8) || '-' || substr(hex(t.id), 9, 4) || '-' || substr(hex(t.id), 13, 4)
            || '-' || substr(hex(t.id), 17, 4) || '-' || substr(hex(t.id), 21)) AS site_id,
        lower(substr(hex(d.id), 1, 8) || '-' || substr(hex(d.id), 9, 4) || '-' || substr(hex(d.id), 13, 4)
            || '-' || substr(hex(d.id), 17, 4) || '-' || substr(hex(d.id), 21)) AS device_id
    FROM series s
    JOIN devices d ON d.number = s.device
    JOIN parameters p ON p.number = s.parameter
    JOIN sites t ON t.number = d.site
    JOIN projects g ON g.number = t.project
    JOIN orgs o ON o.number = s.org
    CROSS JOIN readings r ON r.org = s.org AND r.series = s.number -- that is: after the others
        AND r.time_ms = (SELECT max(n.time_ms) FROM readings n WHERE n.org = s.org AND n.series = s.number)
    WHERE o.readings_from_ms IS NULL OR r.time_ms >= o.readings_from_ms;
CREATE VIEW v_scada_latest AS
    SELECT device_id, parameter_key, "timestamp" AS time, value, quality, customer_id FROM v_scada_latest_readable;

-- Every reading. Bound it by device_name, customer or time_ms.
CREATE VIEW v_scada_history_readable AS
    SELECT o.name AS customer, g.name AS project, t.name AS site, d.name AS device_name,
        d.external_id AS device_code, d.device_type, p.name AS parameter_name, p.key AS parameter_key, p.unit,
        strftime('%Y-%m-%dT%H:%M:', r.time_ms / 1000, 'unixepoch')
            || printf('%06.3fZ', (r.time_ms % 60000) / 1000.0) AS "timestamp",
        r.value, r.quality, r.source,
        lower(substr(hex(o.id), 1, 8) || '-' || substr(hex(o.id), 9, 4) || '-' || substr(hex(o.id), 13, 4)
            || '-' || substr(hex(o.id), 17, 4) || '-' || substr(hex(o.id), 21)) AS customer_id,
        lower(substr(hex(g.id), 1, 8) || '-' || substr(hex(g.id), 9, 4) || '-' || substr(hex(g.id), 13, 4)
            || '-' || substr(hex(g.id), 17, 4) || '-' || substr(hex(g.id), 21)) AS project_id,
        lower(substr(hex(t.id), 1, 8) || '-' || substr(hex(t.id), 9, 4) || '-' || substr(hex(t.id), 13, 4)
            || '-' || substr(hex(t.id), 17, 4) || '-' || substr(hex(t.id), 21)) AS site_id,
        lower(substr(hex(d.id), 1, 8) || '-' || substr(hex(d.id), 9, 4) || '-' || substr(hex(d.id), 13, 4)
            || '-' || substr(hex(d.id), 17, 4) || '-' || substr(hex(d.id), 21)) AS device_id, r.time_ms
    FROM series s
    JOIN devices d ON d.number = s.device
    JOIN parameters p ON p.number = s.parameter
    JOIN sites t ON t.number = d.site
    JOIN projects g ON g.number = t.project
    JOIN orgs o ON o.number = s.org
    CROSS JOIN readings r ON r.org = s.org AND r.series = s.number
    WHERE o.readings_from_ms IS NULL OR r.time_ms >= o.readings_from_ms;
CREATE VIEW v_scada_history AS
    SELECT "timestamp" AS time, device_id, parameter_key, value, quality, source, customer_id, time_ms
    FROM v_scada_history_readable;

-- Packets of the last hour of each active device, by the rules of docs/decisions/0010-telemetry.md.
CREATE VIEW v_packet_health AS
    WITH hour AS (SELECT CAST(strftime('%s', 'now') AS INTEGER) * 1000 AS now_ms),
    packets AS (
        SELECT s.org, s.device, r.time_ms, min(r.received_ms) AS first_ms
        FROM series s JOIN readings r ON r.org = s.org AND r.series = s.number
        WHERE r.time_ms >= (SELECT now_ms FROM hour) - 3600000 AND r.time_ms < (SELECT now_ms FROM hour)
        GROUP BY s.org, s.device, r.time_ms
    ),
    counted AS (
        SELECT d.number, o.name AS customer, o.id AS customer_id, g.name AS project, t.name AS site,
            t.id AS site_id, d.name AS device_name, d.external_id AS device_code, d.id AS device_id, d.interval_s,
            3600 / d.interval_s AS expected, count(k.time_ms) AS received,
            sum(CASE WHEN k.first_ms - k.time_ms > 1000 * coalesce(o.late_s, 2 * d.interval_s)
                THEN 1 ELSE 0 END) AS late,
            e.last_time_ms, (SELECT now_ms FROM hour) - coalesce(e.last_time_ms, 0) AS age_ms
        FROM devices d
        JOIN sites t ON t.number = d.site
        JOIN projects g ON g.number = t.project
        JOIN orgs o ON o.number = d.org
        LEFT JOIN device_states e ON e.org = d.org AND e.device = d.number
        LEFT JOIN packets k ON k.org = d.org AND k.device = d.number
        WHERE d.status = 'active'
        GROUP BY d.number
    )
    SELECT customer, project, site, device_name, device_code, expected, received,
        max(0, expected - received) AS missing, late,
        CASE WHEN expected = 0 THEN 100.0 ELSE min(100.0, 100.0 * (received - late) / expected) END
            AS on_time_percent,
        CASE WHEN last_time_ms > 0 THEN strftime('%Y-%m-%dT%H:%M:', last_time_ms / 1000, 'unixepoch')
            || printf('%06.3fZ', (last_time_ms % 60000) / 1000.0) END AS last_time,
        received = 0 AS silent,
        CASE WHEN expected - received > 5 OR age_ms > 3000 * interval_s THEN 'CRITICAL'
            WHEN expected - received > 1 OR age_ms >= 2000 * interval_s THEN 'WARNING'
            ELSE 'OK' END AS status,
        lower(substr(hex(customer_id), 1, 8) || '-' || substr(hex(customer_id), 9, 4) || '-'
            || substr(hex(customer_id), 13, 4) || '-' || substr(hex(customer_id), 17, 4)
            || '-' || substr(hex(customer_id), 21)) AS customer_id,
        lower(substr(hex(site_id), 1, 8) || '-' || substr(hex(site_id), 9, 4) || '-'
            || substr(hex(site_id), 13, 4) || '-' || substr(hex(site_id), 17, 4)
            || '-' || substr(hex(site_id), 21)) AS site_id,
        lower(substr(hex(device_id), 1, 8) || '-' || substr(hex(device_id), 9, 4) || '-'
            || substr(hex(device_id), 13, 4) || '-' || substr(hex(device_id), 17, 4)
            || '-' || substr(hex(device_id), 21)) AS device_id
    FROM counted;
