"""Promise: a backup made while the server runs holds everything that was acknowledged before it began; a restored
server gives no position, sequence or version a second meaning; a backup that is damaged or unfinished is refused
whole; and what fails leaves both sides as they were."""
import fcntl
import json
import os
import random
import shutil
import signal
import subprocess

import pytest

from black_box import audit, drained, end_load, event, events, metric, post, start_load, until
from conftest import BINARY, Weir
from test_batch import NDJSON, lines
from test_batch import events as batch_events
from test_uploads import finished

pytestmark = pytest.mark.sqlite_alone


@pytest.fixture
def weir(weir):
    """On the embedded engines, whatever else is being tested."""
    return lambda **more: weir(**{"DATABASE_URL": "", **more})


def restored(weir, server, backup, folder, **settings):
    """A server on a data directory made of the backup."""
    twin = weir(start=False, data_dir=folder, **settings)
    twin.command("restore", str(backup))
    twin.key = server.key
    return twin.start()


def copy_ids(ids, to):
    """The whole lines that are there now."""
    text = ids.read_text()
    to.write_text(text[:text.rindex("\n") + 1])
    return to


def test_under_load_nothing_acknowledged_is_missing(weir, tmp_path):
    server = weir(JOURNAL_SEGMENT_MB=1, JOURNAL_REPLAY_SECONDS=0)
    ids = tmp_path / "ids"
    load = start_load(server, connections=16, seconds=60, rate=2000, ids=ids)
    until(lambda: metric(server, "events_ingested_total") > 3000)
    before = copy_ids(ids, tmp_path / "before")
    accepted = metric(server, "events_ingested_total")
    server.command("backup", str(tmp_path / "backup"))
    until(lambda: metric(server, "events_ingested_total") > accepted + 1000)  # intake went on
    server.kill()
    load.send_signal(signal.SIGTERM)
    load.communicate(timeout=60)
    twin = restored(weir, server, tmp_path / "backup", tmp_path / "twin")
    assert audit(twin, before) == len(before.read_text().split())


def test_journal_and_uploads_that_are_not_applied(weir, tmp_path):
    server = weir(APPLY_PAUSED=1)
    ids = [post(server, number) for number in range(50)]
    upload = server.post("/api/events/batch", lines(batch_events(3000, "up", 100)), headers=NDJSON).json["upload_id"]
    ids += [post(server, number) for number in range(50, 60)]
    done = server.command("backup", str(tmp_path / "backup")).stdout
    assert "store at position 0, journal to 61, 1 uploads" in done
    twin = restored(weir, server, tmp_path / "backup", tmp_path / "twin")
    assert finished(twin, upload)["counts"]["inserted"] == 3000
    drained(twin)
    found = [one["id"] for one in events(twin, "&type=test.event")]
    assert found == ids


def test_without_a_server_it_is_the_same(weir, tmp_path):
    server = weir(APPLY_PAUSED=1)
    ids = [post(server, number) for number in range(20)]
    upload = server.post("/api/events/batch", lines(batch_events(3000, "up", 100)), headers=NDJSON).json["upload_id"]
    server.kill()
    server.command("backup", str(tmp_path / "backup"))
    twin = restored(weir, server, tmp_path / "backup", tmp_path / "twin")
    assert finished(twin, upload)["state"] == "processed"
    assert [one["id"] for one in events(twin, "&type=test.event")] == ids
    # A directory that never served has a store and no journal.
    fresh = weir(start=False, data_dir=tmp_path / "fresh")
    key = fresh.new_org("only")
    fresh.command("backup", str(tmp_path / "backup2"))
    again = weir(start=False, data_dir=tmp_path / "again")
    again.command("restore", str(tmp_path / "backup2"))
    again.key = key
    again.start()
    assert post(again, 1)


def test_a_retained_body_and_damage_that_is_known(weir, tmp_path):
    server = weir()
    upload = server.post("/api/events/batch", lines(batch_events(3000, "up", 100)), headers=NDJSON).json["upload_id"]
    finished(server, upload)
    assert "1 uploads" in server.command("backup", str(tmp_path / "one")).stdout
    assert (tmp_path / "one/uploads" / f"{upload}.up").exists()
    os.unlink(server.data_dir / "uploads" / f"{upload}.up")
    done = server.command("backup", str(tmp_path / "two"))
    assert "0 uploads" in done.stdout and done.stderr == ""  # applied: nothing is lost with it


def test_the_server_keeps_its_locks_beside_other_processes(weir, tmp_path):
    """A process that opens the database and closes it again, a backup or the sqlite3 shell, is not the last one: the
    WAL stays, and with it what was committed."""
    server = weir()
    for number in range(3):
        post(server, f"before-{number}")
        drained(server)
        wal = os.stat(server.data_dir / "weir.db-wal").st_ino
        shell = subprocess.run(["sqlite3", str(server.data_dir / "weir.db"), "SELECT count(*) FROM events"],
                               capture_output=True, text=True)
        assert shell.returncode == 0, shell.stderr
        server.command("backup", str(tmp_path / f"backup-{number}"))
        assert os.stat(server.data_dir / "weir.db-wal").st_ino == wal
        end_load(start_load(server, connections=4, count=500))
    drained(server)
    server.kill()
    server.start()
    drained(server)
    assert len(events(server)) == 1503


def place_of(answer):
    return answer.json["next_cursor"]


def test_what_clients_hold_stays_valid_and_means_nothing_else(weir, tmp_path):
    """The first server goes on after the backup, and its clients then meet the restored one."""
    server = weir()
    early = [post(server, number) for number in range(10)]
    drained(server)
    server.command("backup", str(tmp_path / "backup"))
    late = [post(server, number) for number in range(10, 19)]
    answer = server.post("/api/events", event(19))
    late.append(answer.json["id"])
    server.wait_applied(answer.json["position"])
    page = server.get("/api/v1/events?order=asc&limit=15")
    assert [one["id"] for one in page.json["events"]] == early + late[:5]
    tag = page.headers["etag"]
    last = server.post("/api/events", event(100))
    position = int(last.json["position"], 16)
    server.kill()

    twin = restored(weir, server, tmp_path / "backup", tmp_path / "twin")
    answer = twin.post("/api/events", event(200))
    assert int(answer.json["position"], 16) > position + 1000
    new = [answer.json["id"]]
    new += [post(twin, number) for number in range(201, 204)]
    answer = twin.post("/api/events", event(204))
    new.append(answer.json["id"])
    twin.wait_applied(answer.json["position"])
    # The cursor stands after five events that are lost here: what comes next is new, and nothing is skipped.
    rest = twin.get(f"/api/v1/events?order=asc&limit=15&cursor={place_of(page)}")
    assert [one["id"] for one in rest.json["events"]] == new
    assert [one["id"] for one in events(twin)] == early + new
    same = twin.get("/api/v1/events?order=asc&limit=15", headers={"If-None-Match": tag})
    assert same.status == 200 and same.headers["etag"] != tag
    # The same dedup_id gives the same id: the org's id key came along.
    assert post(twin, 12) == late[2]
    # A second generation jumps again.
    twin.command("backup", str(tmp_path / "second"))
    third = restored(weir, server, tmp_path / "second", tmp_path / "third")
    last = third.post("/api/events", event(300)).json["position"]
    assert int(last, 16) > int(answer.json["position"], 16) + 1000
    third.wait_applied(last)
    assert len(events(third)) == 17


def test_a_live_tail_reads_over_the_jump(weir, tmp_path):
    server = weir()
    first = post(server, 1)
    drained(server)
    place = tail_until(server, None, first)
    server.command("backup", str(tmp_path / "backup"))
    server.kill()
    twin = restored(weir, server, tmp_path / "backup", tmp_path / "twin")
    second = post(twin, 2)
    drained(twin)
    tail_until(twin, place, second)


def tail_until(server, place, wanted):
    """Reads the stream until the event comes; gives its place."""
    connection = server.connect()
    headers = {"X-API-Key": server.key, "Last-Event-ID": place} if place else {"X-API-Key": server.key}
    connection.request("GET", "/api/v1/events/stream", headers=headers)
    answer = connection.getresponse()
    assert answer.status == 200
    if place is None:
        wanted = post(server, 99)
    try:
        at = None
        while True:
            line = answer.readline().decode()
            assert line, "the stream ended"
            if line.startswith("id: "):
                at = line[4:].strip()
            if line.startswith("data: ") and json.loads(line[6:])["id"] == wanted:
                return at
    finally:
        connection.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A backup with a store, a journal and an upload."""
    folder = tmp_path_factory.mktemp("made")
    server = Weir(folder / "data", {"APPLY_PAUSED": "1", "DATABASE_URL": ""})
    for number in range(20):
        post(server, number)
    server.post("/api/events/batch", lines(batch_events(3000, "up", 100)), headers=NDJSON)
    server.command("backup", str(folder / "backup"))
    server.stop(signal.SIGKILL)
    return folder / "backup"


def restore(backup, to):
    return subprocess.run([str(BINARY), "restore", str(backup), "--data-dir", str(to)], capture_output=True,
                          text=True, timeout=120, cwd=backup.parent, env={"PATH": os.environ["PATH"]})


def refused(backup, to, *words):
    done = restore(backup, to)
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done
    for word in words:
        assert word in done.stderr, done.stderr
    assert not to.exists() or list(to.iterdir()) == []


def names(backup):
    return sorted(str(path.relative_to(backup)) for path in backup.rglob("*") if path.is_file())


def test_it_holds_what_it_should(made):
    found = names(made)
    assert [name.split("/")[0] for name in found] == ["MANIFEST", "journal", "uploads", "weir.db"]
    for name in found:
        assert (made / name).stat().st_mode & 0o077 == 0  # key hashes are in it
    check = subprocess.run(["sqlite3", str(made / "weir.db"), "PRAGMA integrity_check"], capture_output=True, text=True)
    assert check.stdout == "ok\n"
    checked = subprocess.run([str(BINARY), "journal", "check"], capture_output=True, text=True,
                             env={"PATH": os.environ["PATH"], "DATA_DIR": str(made)})
    assert checked.returncode == 0 and "last stop       clean" in checked.stdout


def test_a_flipped_bit_is_found_before_anything_is_written(made, tmp_path):
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    for name in names(made):
        copy = tmp_path / "copy"
        shutil.copytree(made, copy)
        raw = bytearray((copy / name).read_bytes())
        raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        (copy / name).write_bytes(raw)
        refused(copy, tmp_path / "to", name)
        shutil.rmtree(copy)
    assert restore(made, tmp_path / "to").returncode == 0  # unharmed it is taken


def test_what_is_not_whole_is_refused(made, tmp_path):
    for name in names(made):
        copy = tmp_path / "copy"
        shutil.copytree(made, copy)
        os.truncate(copy / name, (copy / name).stat().st_size - 1)
        refused(copy, tmp_path / "to", name)
        os.unlink(copy / name)
        refused(copy, tmp_path / "to", name)
        shutil.rmtree(copy)
    refused(tmp_path, tmp_path / "to", "MANIFEST", "not a backup")
    # A manifest from somebody else may not reach outside.
    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    text = (copy / "MANIFEST").read_text()
    (copy / "MANIFEST").write_text(text.replace(" weir.db", " uploads/../x"))
    number = text[:text.index(" weir.db")].count("\n") + 1
    refused(copy, tmp_path / "to", "MANIFEST", f"line {number} is damaged")


def test_only_into_an_empty_place(made, tmp_path, weir):
    full = tmp_path / "full"
    full.mkdir()
    (full / "something").write_text("mine")
    done = restore(made, full)
    assert done.returncode == 1 and f"{full} is not empty" in done.stderr
    assert names(full) == ["something"]
    server = weir()
    for target in (full, made):
        done = server.command("backup", str(target), check=False)
        assert done.returncode == 1 and "is not empty" in done.stderr
    assert names(full) == ["something"]
    done = restore(made, server.data_dir)
    assert done.returncode == 1 and "is not empty" in done.stderr


def test_half_a_restore_is_not_served(weir, made, tmp_path):
    to = tmp_path / "to"
    assert restore(made, to).returncode == 0
    (to / "weir.restoring").write_text("")
    server = weir(start=False, data_dir=to)
    done = server.command("serve", check=False)
    assert done.returncode == 1 and "did not finish" in done.stderr
    assert server.command("org", "list", check=False).returncode == 1


def test_killed_half_way_it_is_no_backup(weir, tmp_path):
    server = weir()
    big = lines([{"type": "big", "payload": {"text": os.urandom(30000).hex()}} for _ in range(600)])
    finished(server, server.post("/api/events/batch", big, headers=NDJSON).json["upload_id"])
    backup = tmp_path / "backup"
    process = subprocess.Popen([str(BINARY), "backup", str(backup)], env=server.environment(), cwd=tmp_path)
    until((backup / "weir.db").exists)
    process.kill()
    process.wait()
    assert not (backup / "MANIFEST").exists()
    refused(backup, tmp_path / "to", "not a backup")
    # The server holds nothing for it any more, and the next one is whole.
    server.command("backup", str(tmp_path / "next"))
    assert restore(tmp_path / "next", tmp_path / "to").returncode == 0


@pytest.mark.parametrize("megabytes", [1, 30])
def test_a_full_disk_ends_it_with_one_line(weir, tmp_path, megabytes):
    """On a small disk of its own: too small for the store, which is seen at once; and for what comes after it.
    Without the right to mount, a limit on the size of files stands in for it."""
    from test_outages import private_mounts
    server = weir()
    big = lines([{"type": "big", "payload": {"text": os.urandom(10000).hex()}} for _ in range(1100)])
    finished(server, server.post("/api/events/batch", big, headers=NDJSON).json["upload_id"])
    drained(server)
    disk = tmp_path / "disk"
    disk.mkdir()
    mounts = private_mounts()
    script = (f'mount -t tmpfs -o size={megabytes}m none "{disk}" && "$@"; status=$?; find "{disk}" -mindepth 2;'
              f' exit $status')
    words = [*mounts, "sh", "-c", script, "sh"] if mounts else ["prlimit", f"--fsize={megabytes << 20}"]
    done = subprocess.run([*words, str(BINARY), "backup", str(disk / "backup")], env=server.environment(),
                          cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode not in (0, 2), done
    if mounts:
        assert done.stderr.count("\n") == 1 and str(disk) in done.stderr, done
        assert done.stdout == ""  # what was written is removed
    assert post(server, 1)


def segments(server):
    return [path for path in (server.data_dir / "journal").iterdir() if path.name[0] != "s" and path.suffix == ".seg"]


@pytest.mark.seconds(6)
def test_nothing_goes_while_it_runs(weir, tmp_path):
    server = weir(JOURNAL_SEGMENT_MB=1, JOURNAL_REPLAY_SECONDS=0, RETENTION_RAW_DAYS=0)
    lock = os.open(server.data_dir / "journal", os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = server.command("backup", str(tmp_path / "backup"), check=False)
        assert done.returncode == 1 and "another backup" in done.stderr
        assert not (tmp_path / "backup").exists()
        end_load(start_load(server, connections=4, count=8000, **{"event-bytes": 1000}))
        drained(server)
        upload = server.post("/api/events/batch", lines(batch_events(3000, "up", 100)), headers=NDJSON).json["upload_id"]
        finished(server, upload)
        assert len(segments(server)) >= 8
        # The look for old uploads comes at the start.
        server.stop()
        server.start()
        drained(server)
        assert len(segments(server)) >= 8
        assert (server.data_dir / "uploads" / f"{upload}.up").exists()
    finally:
        os.close(lock)
    post(server, 1)
    until(lambda: len(segments(server)) < 4)
    until(lambda: not (server.data_dir / "uploads" / f"{upload}.up").exists())


def test_on_postgresql_it_names_the_tools(weir, tmp_path):
    server = weir(start=False, data_dir=tmp_path / "data", DATABASE_URL="postgresql://localhost/weir")
    server.data_dir.mkdir()
    done = server.command("backup", str(tmp_path / "backup"), check=False)
    assert done.returncode == 1 and "pg_dump" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "backup").exists()
    done = server.command("restore", str(tmp_path / "backup"), check=False)
    assert done.returncode == 1 and "pg_restore" in done.stderr and done.stderr.count("\n") == 1
