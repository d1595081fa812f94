"""Promise: on PostgreSQL each reading lies in the part of its month, whenever it comes; what stood there before
there were parts is kept; and the views show to others what the program itself answers, on either engine."""
import contextlib
import datetime
import pathlib
import sqlite3
import time
import uuid

import pytest

from black_box import until
from conftest import STORE
from test_telemetry import NDJSON, Plant, iso, ms

DAY = 86_400
SCHEMA = pathlib.Path(__file__).resolve().parents[2] / "src/store/schema/postgres"


def settings(database, **more):
    return database.store_settings(database.name, **more)


def sql(database, text):
    return database.sql(text, database.name)


def month_of(wall_ms):
    at = datetime.datetime.fromtimestamp(wall_ms / 1000, datetime.timezone.utc)
    return f"readings_{at.year:04d}_{at.month:02d}"


def rows_by_part(database):
    return {part: int(count) for part, count in
            (line.split("|") for line in sql(database, "SELECT tableoid::regclass, count(*) FROM readings GROUP BY 1").split())}


def test_each_month_comes_with_its_first_reading(weir, database):
    server = weir(**settings(database))
    plant = Plant(server, "months")
    times = [ms(age * DAY + n) for age in (1, 31, 62, 89) for n in range(6)]  # many: by sets
    assert plant.send([plant.message(n, iso(at)) for n, at in enumerate(times)]).status == 200
    times.append(ms(45 * DAY))
    assert plant.send(plant.message(99, iso(times[-1]))).status == 200  # one: row by row
    expected = {}
    for at in times:
        expected[month_of(at)] = expected.get(month_of(at), 0) + 1
    assert rows_by_part(database) == expected
    assert [r["time"] for r in plant.readings()] == [iso(at) for at in sorted(times)]
    assert set(expected) <= set(sql(database, "SELECT name FROM reading_months").split())
    # Bounds touch: nothing falls between two months.
    assert sql(database, "SELECT count(*) FROM reading_months m WHERE extract(day FROM"
                         " to_timestamp(m.end_ms / 1000) AT TIME ZONE 'UTC') <> 1") == "0"


def test_what_stood_there_before_is_kept(weir, database):
    for path in sorted(SCHEMA.glob("000[1-5]_*.sql")):
        sql(database, path.read_text())
    sql(database, "CREATE TABLE weir_schema (version bigint PRIMARY KEY, applied_at timestamptz DEFAULT now())")
    sql(database, "INSERT INTO weir_schema SELECT generate_series(1, 5)")
    # The first device and parameter of the first org will have these numbers.
    old = [ms(age * DAY) for age in (400, 200, 33, 2)]
    sql(database, "INSERT INTO series (org, device, parameter) VALUES (1, 1, 1)")
    for n, at in enumerate(old):
        sql(database, "INSERT INTO readings (org, series, time_ms, value, flags, received_ms, position)"
                      f" VALUES (1, 1, {at}, {n}, 0, {at}, 0)")
    server = weir(**settings(database))
    plant = Plant(server, "old")
    new = [ms(n) for n in range(20)]
    assert plant.send([plant.message(7, iso(at)) for at in new]).status == 200
    assert plant.send(plant.message(8, iso(old[3]))).status == 200  # in place of what stood there
    got = {r["time"]: r["value"] for r in plant.readings()}
    assert got == {**{iso(at): 7 for at in new}, **{iso(at): n for n, at in enumerate(old)}, iso(old[3]): 8}
    parts = sql(database, "SELECT name FROM reading_months ORDER BY start_ms").split()
    assert parts[0] == "readings_before" and int(sql(database, "SELECT count(*) FROM readings_before")) >= len(old)


def test_two_nodes_make_a_month_once(weir, database):
    nodes = [weir(**settings(database)), weir(start=False, **settings(database))]
    nodes[1].key = nodes[0].key
    nodes[1].start()
    plant = Plant(nodes[0], "both")
    for age in (30, 60, 85):
        times = [ms(age * DAY + n) for n in range(40)]
        lines = "".join(f'{{"device_id":"{plant.device["id"]}","metrics":[{{"parameter_key":"voltage","value":{n}}}],'
                        f'"source_timestamp":"{iso(at)}"}}\n' for n, at in enumerate(times))
        for node in nodes:
            assert node.post("/v1/ingest", lines, headers=NDJSON).status == 200
    until(lambda: len(plant.readings("&limit=1000")) == 120)
    names = sql(database, "SELECT name FROM reading_months").split()
    assert len(names) == len(set(names))


# --- views ------------------------------------------------------------------------------------------------


@pytest.fixture
def viewed(weir, database):
    """A server on the engine of this run, and what reads a view there: a list of dicts."""
    if STORE == "postgres":
        server = weir(**settings(database))

        def read(text):
            names, *lines = database.sql(f"COPY ({text}) TO STDOUT (FORMAT csv, HEADER, DELIMITER '|')",
                                         database.name).splitlines()
            return [dict(zip(names.split("|"), line.split("|"))) for line in lines]
    else:
        server = weir()

        def read(text):
            with contextlib.closing(sqlite3.connect(f"{server.data_dir}/weir.db")) as connection:
                connection.row_factory = sqlite3.Row
                return [{name: "" if row[name] is None else str(row[name]) for name in row.keys()}
                        for row in connection.execute(text)]
    return server, read


def instant(text):
    text = text.replace("Z", "+00:00")
    text = text + ":00" if text[-3] in "+-" else text
    return datetime.datetime.fromisoformat(text).timestamp()


def test_the_views_of_scada(viewed):
    server, read = viewed
    plant = Plant(server, "scada")
    current = plant.make("parameters", project_id=plant.project["id"], name="Current", unit="A")
    at = ms(30)
    assert plant.send([plant.message(1.5, iso(at - 1000), protocol="GPRS"), plant.message(2.5, iso(at), protocol="MQTT"),
                       {**plant.message(0, iso(at - 7)), "metrics": [
                           {"parameter_key": current["key"], "value": 4, "quality": 12}]}]).status == 200
    latest = {row["parameter_key"]: row for row in read("SELECT * FROM v_scada_latest")}
    assert set(latest) == {plant.voltage["key"], current["key"]}
    row = latest[current["key"]]
    assert list(row)[:5] == ["device_id", "parameter_key", "time", "value", "quality"]
    assert row["device_id"] == plant.device["id"] and float(row["value"]) == 4 and row["quality"] == "12"
    assert instant(row["time"]) == pytest.approx((at - 7) / 1000, abs=1e-6)
    assert float(latest[plant.voltage["key"]]["value"]) == 2.5 and latest[plant.voltage["key"]]["quality"] == ""
    history = read("SELECT * FROM v_scada_history ORDER BY time_ms")
    assert list(history[0])[:6] == ["time", "device_id", "parameter_key", "value", "quality", "source"]
    assert [(float(r["value"]), r["source"]) for r in history] == [(1.5, "GPRS"), (4, ""), (2.5, "MQTT")]
    readable = read("SELECT * FROM v_scada_latest_readable")[0]
    assert list(readable)[:13] == ["customer", "project", "site", "device_name", "device_code", "device_type",
                                   "parameter_name", "parameter_key", "unit", "timestamp", "value", "quality", "source"]
    assert readable["project"] == "scada" and readable["device_code"] == "scada-1" and readable["site"] == "north"
    assert all(uuid.UUID(readable[name]) for name in ("customer_id", "project_id", "site_id", "device_id"))


def test_the_view_of_packet_health_says_what_the_program_says(viewed):
    server, read = viewed
    plant = Plant(server, "health")
    # An interval of 600 s: 6 packets an hour. Device a: all of them; b: three, the newest 1,500 s ago; c: none.
    devices = [plant.make("devices", site_id=plant.site["id"], name=name, interval_s=600) for name in "abc"]
    ages = [[60 + 600 * n for n in range(6)], [1500, 2100, 2700], []]
    for device, seconds in zip(devices, ages):
        for age in seconds:
            message = {**plant.message(1, iso(ms(age))), "device_id": device["id"]}
            assert plant.send(message).status == 200
    view = {row["device_id"]: row for row in read("SELECT * FROM v_packet_health")}
    answer = server.get(f"/api/v1/devices/health?hours=1&site_id={plant.site['id']}").json["devices"]
    said = {one["device_id"]: one for one in answer}
    assert set(said) == set(view)
    for device, status in zip(devices, ("OK", "WARNING", "CRITICAL")):
        mine, theirs = view[device["id"]], said[device["id"]]
        assert mine["status"] == theirs["status"] == status
        for name in ("expected", "received", "missing", "late"):
            assert int(mine[name]) == theirs[name], name
        assert float(mine["on_time_percent"]) == pytest.approx(theirs["on_time_percent"])
        assert mine["silent"] in (("t", "1") if theirs["silent"] else ("f", "0"))


def test_a_reader_of_scada_sees_views_and_nothing_else(weir, database):
    server = weir(**settings(database))
    plant = Plant(server, "reader")
    assert plant.send(plant.message(5, iso(ms(9)))).status == 200
    text = (pathlib.Path(__file__).resolve().parents[2] / "docs/operations.md").read_text()
    grant = text.split("```sql\n-- scada\n")[1].split("```")[0]
    sql(database, grant)
    assert database.sql("SET ROLE scada; SELECT value FROM v_scada_latest", database.name).split()[-1] == "5"
    for table in ("readings", "keys", "secrets", "orgs"):
        with pytest.raises(Exception):
            database.sql(f"SET ROLE scada; SELECT * FROM {table}", database.name)
    query = text.split("```sql\n-- grafana\n")[1].split("```")[0]
    for macro, value in (("$__timeFilter(time)", "time > now() - interval '1 hour'"),
                         ("$__unixEpochFrom()", str(int(time.time()) - 3600)),
                         ("$__unixEpochTo()", str(int(time.time()) + 60)), ("$device", plant.device["id"])):
        query = query.replace(macro, value)
    assert "$" not in query and database.sql(query, database.name).strip().endswith("|5")
    sql(database, "DROP OWNED BY scada")
    sql(database, "DROP ROLE scada")
