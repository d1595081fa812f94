"""Promise: migrate-store carries every row of every table, bit for bit, between both engines and both ways; the
server goes on with the same DATA_DIR as if nothing had happened; and what is half carried is never served."""
import contextlib
import os
import pty
import re
import signal
import sqlite3
import subprocess

import pytest

from black_box import drained, event, events, post, until
from conftest import BINARY
from test_telemetry import Plant, letters, ms

pytestmark = pytest.mark.sqlite_alone
SECRET = "swordfish"
DERIVED = {"event_ids", "event_subjects"}  # of events; views on PostgreSQL


@pytest.fixture(scope="module")
def database_server(database_server):
    database_server.sql(f"CREATE ROLE locked LOGIN PASSWORD '{SECRET}'")
    return database_server


@pytest.fixture
def target(database_server):
    """The URL of an empty database."""
    database_server.name = database_server.new_database()
    return database_server.url(database_server.name)


def sql(server, text):
    return server.sql(text, server.name)


def tables(path):
    with contextlib.closing(sqlite3.connect(path)) as database:
        return {name for name, in database.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'")}


def rows(path):
    """Everything in an SQLite database; of doubles the digits that tell them apart."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        return {name: sorted(map(repr, database.execute(f"SELECT * FROM {name}"))) for name in tables(path)}


def in_postgres(server):
    """How many rows each table there has."""
    names = sql(server, "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition AND"
                        " relnamespace = current_schema()::regnamespace").split()
    return {name: int(sql(server, f"SELECT count(*) FROM {name}")) for name in names
            if name not in {"weir_schema", "reading_months", "changes"}}  # its own, of no other engine


def migrate(server, source, to, check=True):
    return server.command("migrate-store", source, to, check=check)


def fails(server, source, to, *parts):
    """One line that holds the parts; gives it."""
    done = migrate(server, source, to, check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done
    for part in parts:
        assert part in done.stderr, done.stderr
    return done.stderr


def fill(path):
    """A row in each table that has none, and values that are easily bent."""
    bent = [("0.1", "''"), ("5e-324", "'a''b\\\\c\n\t'"), ("-1.7976931348623157e308", "'\u00e9\U0001f600'"), ("1e23", "'NULL'"),
            ("9007199254740993.0", "NULL"), ("NULL", "'\\N'"), ("9e999", "'{}'")]
    with contextlib.closing(sqlite3.connect(path)) as database:
        for n, (value, text) in enumerate(bent):
            database.execute(f"INSERT INTO readings VALUES (1, 1, {n - 3}, {value}, NULL, {(1 << 63) - 1},"
                             f" {text}, {text}, {text}, {-1 << 63}, {n})")
        database.execute("INSERT INTO secrets VALUES ('bytes', ?), ('empty', x'')", (bytes(range(256)),))
        kinds = {"INTEGER": "1", "TEXT": "'x'", "BLOB": "x'0102030405060708090a0b0c0d0e0f10'", "REAL": "0.1"}
        for name in tables(path):
            if database.execute(f"SELECT count(*) FROM {name}").fetchone()[0] == 0 and name not in DERIVED:
                values = ", ".join("NULL" if column == "subject" else kinds[kind] for column, kind in database.execute(
                    f"SELECT name, type FROM pragma_table_info('{name}')"))
                database.execute(f"INSERT INTO {name} VALUES ({values})")
        database.execute("INSERT INTO event_ids SELECT id, sequence FROM events")
        database.commit()


def test_every_table_is_carried_both_ways(weir, database_server, target, tmp_path):
    server = weir(start=False)
    server.new_org("one")
    path = f"{server.data_dir}/weir.db"
    fill(path)
    before = rows(path)
    assert all(before[name] for name in tables(path) - {"event_subjects"})
    done = migrate(server, "sqlite:", target)
    assert "the same on both sides" in done.stdout
    assert in_postgres(database_server) == {n: len(r) for n, r in before.items() if n not in DERIVED}
    assert rows(path) == before
    back = f"{tmp_path}/back.db"
    migrate(server, target, f"sqlite:{back}")
    assert rows(back) == before
    # A new row gets the next number.
    server.settings["DATABASE_URL"] = target
    server.new_org("two")
    assert sql(database_server, "SELECT max(number) FROM orgs") == "2"


def whole(server, path, cursor=None):
    """The first page's tag, and the list to its end: a page that takes long ends early, with a cursor."""
    tag, found = None, []
    while True:
        answer = server.get(path + (f"&cursor={cursor}" if cursor else ""))
        assert answer.status == 200, answer
        rows, = (value for value in answer.json.values() if isinstance(value, list))
        tag, found = tag or answer.headers.get("etag"), found + rows
        cursor = answer.json["next_cursor"]
        if cursor is None:
            return tag, found


def test_the_same_server_goes_on(weir, database_server, target, tmp_path):
    server = weir()
    other = server.new_org("other")
    assert server.request("PUT", "/api/v1/settings", {"silence_hours": 0}).status == 200  # no event of ours
    plant = Plant(server, "plant")
    for n in range(5):
        assert plant.send(plant.message(n / 10, at=ms(60 - n))).status in (200, 201)
    assert plant.send(plant.message(1, parameter="nobody")).status in (200, 201, 202)
    kept = [post(server, n, subject=f"s{n % 3}", app="a") for n in range(40)]
    drained(server)
    assert server.post("/api/inbox/ack", {"event_ids": kept[:4]}).status == 200
    assert server.post("/api/v1/erase", {"subject": "s1"}).json["events"] == 13
    page = server.get("/api/v1/events?limit=7&order=asc").json
    server.stop()
    server.settings["APPLY_PAUSED"] = "1"
    server.start()
    for n in range(40, 60):
        post(server, n)

    def answers():
        lists = [whole(server, path) for path in (
            "/api/v1/events?limit=1000", "/api/inbox?limit=1000", "/api/v1/events?subject=s2&limit=100",
            f"/api/v1/readings?device_id={plant.device['id']}", "/api/v1/dead-letters?limit=100",
            "/api/v1/parameters?limit=100")]
        return [*lists, whole(server, "/api/v1/events?limit=7&order=asc", page["next_cursor"])]

    before = answers()
    assert len(before[3][1]) == 5 and len(before[6][1]) == 40 - 13 - len(page["events"])
    dead = letters(server)
    server.stop()
    migrate(server, "sqlite:", target)
    server.settings["DATABASE_URL"] = target
    server.start()
    assert answers() == before
    assert letters(server) == dead and len(dead) == 1
    assert server.get("/api/v1/events", key=other).json["events"] == []
    server.stop()
    del server.settings["APPLY_PAUSED"]
    server.start()  # what the journal holds beyond the store is applied, once
    drained(server)
    assert {one["payload"]["number"] for one in events(server)} >= set(range(40, 60))
    assert len(events(server)) == 40 - 13 + 20
    again = server.post("/api/events?wait=stored", event(0, subject="s0", app="a"))
    assert again.status == 200 and again.json["id"] == kept[0]
    server.stop()
    # And back: the server goes on with what both have taken in.
    now = f"sqlite:{tmp_path}/back.db"
    server.settings["DATABASE_URL"] = target
    migrate(server, target, now)
    server.settings["DATABASE_URL"] = now
    server.start()
    assert {one["payload"]["number"] for one in events(server)} >= set(range(40, 60))
    assert server.post("/api/events?wait=stored", event(100)).status == 201
    server.stop()


def many(path, count=150_000):
    """Events beside the server's own way, since it is the time that matters."""
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            " INSERT INTO events SELECT (1 << 40) + i, randomblob(16), i, 'many', NULL, NULL, NULL, NULL,"
            " '{}', NULL, i, i FROM n", (count,))
        database.execute("INSERT INTO event_ids SELECT id, sequence FROM events")
        database.commit()


def killed_half_way(server, source, to, is_marked):
    words = [str(BINARY), "migrate-store", source, to]
    with subprocess.Popen(words, cwd=server.data_dir.parent, env=server.environment()) as one:
        until(is_marked)
        one.send_signal(signal.SIGKILL)
    assert is_marked()


def refused(server, url):
    server.settings["DATABASE_URL"] = url
    done = server.command("serve", check=False)
    assert done.returncode == 1 and "did not finish: run weir migrate-store again" in done.stderr, done.stderr
    del server.settings["DATABASE_URL"]


@pytest.mark.seconds(10)
def test_killed_half_way_it_is_refused_and_begins_anew(weir, database_server, target, tmp_path):
    server = weir(start=False)
    server.new_org("one")
    path = f"{server.data_dir}/weir.db"
    many(path)
    before = rows(path)
    mark = "SELECT count(*) FROM secrets WHERE name = 'store.unfinished'"

    def marked_there():
        try:
            return sql(database_server, mark) == "1"
        except subprocess.CalledProcessError:  # no such table yet
            return False

    killed_half_way(server, "sqlite:", target, marked_there)
    refused(server, target)
    fails(server, target, f"sqlite:{tmp_path}/never.db", "did not finish")
    migrate(server, "sqlite:", target)
    assert in_postgres(database_server) == {n: len(r) for n, r in before.items() if n not in DERIVED}
    back = f"{tmp_path}/back.db"

    def marked_here():
        if not os.path.exists(back):
            return False
        with contextlib.closing(sqlite3.connect(back, timeout=10)) as database:
            return bool(database.execute("SELECT 1 FROM sqlite_schema WHERE name = 'secrets'").fetchone() and
                        database.execute(mark).fetchone()[0])

    killed_half_way(server, target, f"sqlite:{back}", marked_here)
    refused(server, f"sqlite:{back}")
    migrate(server, target, f"sqlite:{back}")
    assert rows(back) == before


def test_what_cannot_be_done_is_one_line(weir, database_server, target, tmp_path):
    server = weir()
    assert "in use by another weir process" in fails(server, "sqlite:", target)
    server.stop()
    before = rows(f"{server.data_dir}/weir.db")
    fails(server, f"sqlite:{tmp_path}/nothing.db", target, "nothing.db", "does not exist")
    assert not (tmp_path / "nothing.db").exists()
    fails(server, target, f"sqlite:{tmp_path}/new.db", "holds no store of weir")
    url = database_server.url(database_server.name, user="locked", password="guessed")
    for words in (("sqlite:", url), (url, "sqlite:")):
        assert "guessed" not in fails(server, *words, "password authentication failed")
    # The target holds something: it stays as it is.
    migrate(server, "sqlite:", target)
    found = in_postgres(database_server)
    fails(server, "sqlite:", target, "it is not empty")
    assert in_postgres(database_server) == found
    fails(server, target, "sqlite:", "it is not empty")
    assert rows(f"{server.data_dir}/weir.db") == before
    sql(database_server, "INSERT INTO weir_schema (version) VALUES (99)")
    fails(server, target, f"sqlite:{tmp_path}/other.db", "made by a newer program")
    for words in (("sqlite:",), ("sqlite:", "mysql://u:pw@h/d"), (target, target)):
        done = server.command("migrate-store", *words, check=False)
        assert done.returncode == 2 and "pw" not in done.stderr, done


def test_a_row_that_postgresql_cannot_hold_is_named(weir, database_server, target):
    server = weir(start=False)
    server.new_org("one")
    path = f"{server.data_dir}/weir.db"
    many(path, 3)
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE events SET source = 'a' || char(0) || 'b' WHERE sequence = (1 << 40) + 2")
        database.commit()
    fails(server, "sqlite:", target, "events", f"sequence {(1 << 40) + 2} cannot be kept there")
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE events SET source = NULL")
        database.execute("INSERT INTO secrets VALUES ('a' || char(0), x'00')")
        database.commit()
    fails(server, "sqlite:", target, "secrets", "U+0000")


def test_a_terminal_sees_a_bar(weir, target):
    server = weir(start=False)
    server.new_org("one")
    many(f"{server.data_dir}/weir.db", 60_000)
    ours, theirs = pty.openpty()
    with subprocess.Popen([str(BINARY), "migrate-store", "sqlite:", target], cwd=server.data_dir.parent,
                          env=server.environment(), stdout=subprocess.PIPE, stderr=theirs) as one:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while part := os.read(ours, 4096):
                shown += part
        assert one.wait() == 0
    os.close(ours)
    assert re.search(rb"migrating \[#+\.*\] +\d+%", shown), shown
