"""Promise: with PostgreSQL as the store nothing acknowledged is lost when it is stopped, killed or cut off under
load, and everything is back by itself within ten seconds; a database that cannot be used is refused with one
line that says why and never tells a password (R4, I10)."""
import collections
import concurrent.futures
import re
import signal
import subprocess
import threading
import time

import pytest

import postgres

from black_box import (audit, drained, end_load, event, events, is_small, metric, post, start_load, until)
from conftest import BINARY

BACK_SECONDS = 10
SECRET = "swordfish"


@pytest.fixture(scope="module")
def database_server(database_server):
    database_server.sql(f"CREATE ROLE locked LOGIN PASSWORD '{SECRET}'")
    return database_server


def settings(database, **more):
    return database.store_settings(database.name, **more)


def count(database, what="events"):
    return int(database.sql(f"SELECT count(*) FROM {what}", database.name))


def resident_mb(server):
    with open(f"/proc/{server.process.pid}/status", encoding="ascii") as file:
        return int(re.search(r"VmRSS:\s+(\d+)", file.read()).group(1)) >> 10


# --- outages ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGQUIT], ids=["stopped", "killed"])
def test_gone_under_load_loses_nothing_and_comes_back(weir, database, tmp_path, how):
    server = weir(**settings(database))
    ids = tmp_path / "ids"
    load = start_load(server, connections=32, seconds=60, rate=2000, ids=ids)
    until(lambda: metric(server, "events_ingested_total") > 1000)
    database.stop(how)
    taken = metric(server, "events_ingested_total")
    until(lambda: metric(server, "events_ingested_total") > taken + 4000)  # intake goes on
    ready = until(lambda: (lambda a: a if a.json["parts"]["store"]["status"] != "ok" else None)(
        server.get("/health/ready", key=None)))
    assert ready.status == 503 and ready.json["queue"]["records"] > 0
    assert server.get("/health/intake", key=None).status == 200
    database.start()
    back = time.monotonic()
    until(lambda: server.get("/health/ready", key=None).json["parts"]["store"]["status"] == "ok", BACK_SECONDS)
    until(lambda: server.get("/api/inbox?limit=1").status == 200, BACK_SECONDS - (time.monotonic() - back))
    load.terminate()
    got = end_load(load)
    assert got["errors"] == 0 and got["broken"] == 0, got
    assert audit(server, ids) == got["events"]
    assert metric(server, 'ingest_dlq_total{reason="refused"}') == 0
    assert count(database) == got["events"] and is_small(resident_mb(server), 200)


def test_sessions_that_are_cut_off_lose_nothing(weir, database, tmp_path):
    server = weir(**settings(database))
    ids = tmp_path / "ids"
    load = start_load(server, connections=16, seconds=60, rate=1000, ids=ids)
    for _ in range(20):
        taken = metric(server, "events_ingested_total")
        until(lambda: metric(server, "events_ingested_total") > taken + 100)
        database.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                     f" WHERE datname = '{database.name}' AND pid <> pg_backend_pid()")
    load.terminate()
    got = end_load(load)
    assert got["errors"] == 0 and audit(server, ids) == got["events"]
    assert count(database) == got["events"] and count(database, "dead_letters") == 0


def test_reads_and_keys_while_it_is_gone(weir, database):
    server = weir(**settings(database))
    kept = post(server, "kept")
    drained(server)
    database.stop()
    answer = until(lambda: (lambda a: a if a.status != 200 else None)(server.get("/api/inbox")))
    assert answer.status == 503 and answer.headers["retry-after"]
    assert server.post("/api/events", event("taken")).status == 202
    assert server.get("/health/live", key=None).status == 200
    database.start()
    until(lambda: server.get("/api/inbox").status == 200, BACK_SECONDS)
    drained(server)
    assert [one["dedup_id"] for one in events(server)] == ["dkept", "dtaken"]
    assert events(server)[0]["id"] == kept


def test_a_restart_between_two_requests_is_not_seen(weir, database):
    server = weir(**settings(database))
    post(server, "one")
    drained(server)
    database.stop()
    database.start()
    assert server.get("/api/inbox").status == 200
    assert server.post("/api/events?wait=stored", event("two")).status == 201


def test_a_commit_whose_answer_is_lost_is_one_commit(weir, database):
    """The server waits for a standby that does not exist: the commit is on its disk, and is not answered. Its
    session is ended then, so that only the transaction's number can tell what became of it."""
    server = weir(**settings(database))
    database.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
    database.sql("SELECT pg_reload_conf()")
    answers = []
    poster = threading.Thread(target=lambda: answers.append(server.post("/api/events?wait=stored", event("one"))))
    try:
        until(lambda: database.sql("SHOW synchronous_standby_names") == "nobody")
        poster.start()
        waiting = ("FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name = 'weir'"
                   f" AND datname = '{database.name}'")
        until(lambda: database.sql(f"SELECT count(*) {waiting}") != "0")  # other commits may wait there too
        database.sql(f"SELECT pg_terminate_backend(pid) {waiting}")
    finally:
        database.sql("ALTER SYSTEM RESET synchronous_standby_names")
        database.sql("SELECT pg_reload_conf()")
    poster.join()
    # 201: it was stored by that commit. Tried once more it would be a duplicate of itself (200).
    assert answers[0].status == 201, answers
    assert count(database) == 1


# --- the pool ---------------------------------------------------------------------------------------------


def sessions(database):
    return int(database.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'weir'"
                            f" AND datname = '{database.name}'"))


def test_idle_sessions_are_closed_down_to_the_minimum(weir, database):
    server = weir(**settings(database, DATABASE_IDLE_TIMEOUT="0.3", DATABASE_MIN_CONNECTIONS=2))
    load = start_load(server, connections=16, seconds=60, rate=200)
    jobs = [subprocess.Popen(["curl", "-s", "-o", "/dev/null", "-H", f"X-API-Key: {server.key}",
                              f"{server.url}/api/v1/events?limit=1&n=[1-300]"]) for _ in range(6)]
    until(lambda: sessions(database) > 4)
    for job in jobs:
        job.wait()
    load.terminate()
    end_load(load)
    until(lambda: sessions(database) == 4)  # the writer's, the applier's, and two that read


def test_sessions_end_with_their_lifetime(weir, database):
    weir(**settings(database, DATABASE_MAX_LIFETIME="0.5", DATABASE_MIN_CONNECTIONS=2))
    first = database.sql(f"SELECT min(backend_start) FROM pg_stat_activity WHERE datname = '{database.name}'")
    until(lambda: int(database.sql("SELECT count(*) FROM pg_stat_activity WHERE backend_start > "
                                   f"'{first}'::timestamptz + interval '1 second' AND datname = "
                                   f"'{database.name}'")) >= 2)


def test_a_long_query_is_cut_off(weir, database):
    server = weir(**settings(database, DATABASE_QUERY_TIMEOUT="0.5", STORE_READERS=1))
    post(server, "one")
    drained(server)
    assert server.get("/api/inbox").status == 200  # the one reader has its session: opening it has a time of its own
    lock = postgres.Lock(database.url(database.name), "ACCESS EXCLUSIVE")
    answer = server.get("/api/inbox")
    assert answer.status == 503 and answer.json["code"] == "query_timeout", answer
    lock.rollback()
    lock.close()
    assert server.get("/api/inbox").status == 200


# --- a replica --------------------------------------------------------------------------------------------


@pytest.fixture
def standby(database):
    one = postgres.Postgres(standby_of=database)
    yield one
    one.close()


def sessions_on(server, name):
    return int(server.sql(f"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'weir' AND datname = '{name}'"))


@pytest.mark.seconds(8)
def test_a_replica_is_read_from_and_never_shows_less_than_was_told(weir, database, standby):
    server = weir(**settings(database, DATABASE_READ_URL=standby.url(database.name)))

    def told_is_found(number):
        answer = server.post("/api/events?wait=stored", event(number))
        assert answer.status == 201, answer
        newest = server.get("/api/v1/events?limit=1").json["events"][0]
        assert newest["id"] == answer.json["id"]

    def reads_there():  # on a busy machine it may have lagged, and is left alone for a while
        assert server.get("/api/inbox?limit=1").status == 200
        return sessions_on(standby, database.name) >= 1 and sessions_on(database, database.name) == 2

    for number in range(100):
        told_is_found(number)
    until(reads_there)
    standby.sql("SELECT pg_wal_replay_pause()")
    for number in range(100, 110):  # it lags: the primary is asked
        told_is_found(number)
    assert sessions_on(database, database.name) > 2
    standby.sql("SELECT pg_wal_replay_resume()")
    until(reads_there)
    standby.stop()
    for number in range(110, 120):
        told_is_found(number)


@pytest.mark.seconds(7)
def test_readers_go_back_to_a_replica_while_they_are_busy(weir, database, standby):
    server = weir(**settings(database, DATABASE_READ_URL=standby.url(database.name), DATABASE_MIN_CONNECTIONS=3,
                             DATABASE_MAX_CONNECTIONS=6))
    ended = threading.Event()
    answers = collections.Counter()

    def read():
        while not ended.is_set():
            answers[server.get("/api/inbox?limit=1").status] += 1

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read) for _ in range(4)]
        try:
            for _ in range(2):
                until(lambda: sessions_on(database, database.name) == 2 and sessions_on(standby, database.name) == 3)
                standby.stop()
                until(lambda: sessions_on(database, database.name) == 5)
                standby.start()
        finally:
            ended.set()
        for reader in readers:
            reader.result()
    assert answers[200] == answers.total() > 100, answers
    # Told when a reader asks it while it is away; the last time nobody may have asked it again.
    told, again = (sum(words in line for line in server.log) for words in ("the primary is read from", "it is read from again"))
    assert told - again in (0, 1), server.log


@pytest.mark.parametrize("path, words", [("/api/inbox?limit=3", b'"next_cursor"'), ("/api/keys", b'"keys"'),
                                         ("/api/v1/audit", b'"audit"'), ("/api/v1/export/events?format=ndjson", b"dedup_id")])
def test_a_read_that_is_under_way_when_the_replica_goes_is_begun_anew(weir, database, standby, path, words):
    """It waits there for a lock, which the replica has from the primary."""
    server = weir(**settings(database, DATABASE_READ_URL=standby.url(database.name), DATABASE_QUERY_TIMEOUT=60))
    for number in range(5):
        assert server.post("/api/events?wait=stored", event(number)).status == 201
    until(lambda: server.get(path).status == 200 and sessions_on(standby, database.name) > 0)
    before = server.get(path).body
    names = [name for name in database.sql("SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace ="
                                           " 'public'::regnamespace", database.name).split() if name != "weir_schema"]
    lock = postgres.Lock(database.url(database.name), "ACCESS EXCLUSIVE")
    lock.run(f"LOCK TABLE {', '.join(names)} IN ACCESS EXCLUSIVE MODE;")
    database.sql("SELECT pg_switch_wal()")  # what tells the replica of the lock leaves the primary
    held = "SELECT count(*) FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted AND locktype = 'relation'"
    until(lambda: int(standby.sql(held)) >= len(names))
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'weir'"
    answers = []
    reader = threading.Thread(target=lambda: answers.append(server.get(path)))
    reader.start()
    try:
        until(lambda: standby.sql(waiting) == "1")
        standby.stop(signal.SIGQUIT)
    finally:
        lock.rollback()
        lock.close()
        reader.join()
    assert answers[0].status == 200 and words in before
    assert answers[0].body == before, answers


def test_a_replica_that_cannot_be_used_fails_no_read(weir, database):
    database.sql("CREATE DATABASE odd ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    server = weir(**settings(database, DATABASE_READ_URL=database.url("odd"), DATABASE_MIN_CONNECTIONS=0))
    for number in range(10):
        answer = server.post("/api/events?wait=stored", event(number))
        assert answer.status == 201, answer
        assert server.get("/api/v1/events?limit=1").json["events"][0]["id"] == answer.json["id"]
    assert sum("the primary is read from" in line for line in server.log) == 1, server.log


# --- refused at the start -----------------------------------------------------------------------------------


def refused(weir, **more):
    """Starts, must end, and gives the one line that it says."""
    server = weir(start=False, **more)
    done = subprocess.run([str(BINARY), "serve"], cwd=server.data_dir.parent, env=server.environment(),
                          capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(lines) == 1 and lines[0].startswith("weir: "), done.stderr
    assert SECRET not in done.stderr + done.stdout
    return lines[0]


def test_a_newer_schema(weir, database):
    server = weir(**settings(database))
    server.stop()
    database.sql("INSERT INTO weir_schema (version) VALUES (9000)", database.name)
    assert "newer program" in refused(weir, **settings(database))


def test_another_programs_database(weir, database):
    database.sql("CREATE TABLE theirs (x int)", database.name)
    assert "another program" in refused(weir, **settings(database))
    assert database.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", database.name) == "1"


def test_a_database_that_may_only_be_read(weir, database):
    database.sql(f"ALTER DATABASE {database.name} SET default_transaction_read_only = on")
    assert "read-only" in refused(weir, **settings(database))


def test_another_encoding(weir, database):
    database.sql("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    assert "UTF8" in refused(weir, DATABASE_URL=database.url("latin"))


def test_no_such_database_or_user_or_server(weir, database):
    assert '"nowhere" does not exist' in refused(weir, DATABASE_URL=database.url("nowhere"))
    assert "nobody" in refused(weir, DATABASE_URL=database.url(user="nobody"))
    assert "port 1 " in refused(weir, DATABASE_URL="postgresql://weir@127.0.0.1:1/weir")
    assert "libpq" in refused(weir, DATABASE_URL=f"postgresql://weir:{SECRET}%zz@127.0.0.1/weir")


def test_passwords_are_not_told(weir, database):
    database.sql(f"ALTER DATABASE {database.name} OWNER TO locked")
    database.sql(f"ALTER SCHEMA public OWNER TO locked", database.name)
    right = database.url(database.name, "locked", SECRET)
    line = refused(weir, DATABASE_URL=right.replace(SECRET, SECRET[::-1]))
    assert "password authentication failed" in line and SECRET[::-1] not in line
    server = weir(DATABASE_URL=right, LOG_LEVEL="debug")
    shown = server.command("config").stdout
    assert f"DATABASE_URL={right.replace(SECRET, '***')}" in shown and SECRET not in shown
    assert SECRET not in "".join(server.log)
    other = weir(start=False, DATABASE_URL=f"{database.url(database.name, 'locked')}?password={SECRET}")
    assert SECRET not in other.command("config").stdout
