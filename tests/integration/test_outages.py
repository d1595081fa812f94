"""Promise: a full queue, a full disk and a database that is locked or gone are normal states: what cannot be
kept is refused with the documented error, nothing acknowledged is lost, and the server comes back by itself
within ten seconds (I4, I10, R4)."""
import os
import re
import shutil
import subprocess
import time

import pytest

from conftest import STORE
from black_box import (audit, check_problem, drained, end_load, event, events, hold_database, metric, post, start_load, until)

BACK_SECONDS = 10
FILL_MB = 1024


def problem_with_retry(answer, status, code):
    problem = check_problem(answer, status, code)
    assert re.fullmatch(r"[1-9]\d*", answer.headers["retry-after"])
    return problem


def test_a_full_queue_is_429_and_drains(weir):
    server = weir(JOURNAL_MAX_MB=16, APPLY_PAUSED=1)
    payload = {"pad": "x" * 200000}
    taken = []
    for number in range(1000):
        answer = server.post("/api/events", event(number, payload=payload))
        if answer.status != 202:
            break
        taken.append(answer.json["id"])
    problem_with_retry(answer, 429, "queue_full")
    # One org holds half at most; another org is still served.
    other = server.new_org("other")
    assert server.post("/api/events", event(1), key=other).status == 202
    refused = server.post("/api/events/batch", "\n".join(
        '{"type":"a","payload":"%s"}' % ("x" * 1000) for _ in range(600)),
        headers={"Content-Type": "application/x-ndjson"})
    problem_with_retry(refused, 429, "queue_full")
    assert metric(server, 'rate_limited_total{limit="queue"}') >= 2
    assert server.stop() == 0
    server.settings["APPLY_PAUSED"] = "0"
    server.start()
    drained(server)
    assert {one["id"] for one in events(server)} == set(taken)
    assert len(events(server, key=other)) == 1
    assert post(server, "after")


def test_a_full_queue_under_load_loses_nothing_and_comes_back(weir, tmp_path):
    """The database is locked until the queue is full; then it is let go."""
    server = weir(JOURNAL_MAX_MB=16)
    post(server, "first")
    drained(server)
    lock = hold_database(server)
    load = start_load(server, connections=32, seconds=30, rate=4000, **{"event-bytes": 3000, "ids": tmp_path / "ids"})
    until(lambda: metric(server, 'rate_limited_total{limit="queue"}') > 0)
    lock.rollback()
    until(lambda: server.post("/api/events", event("back")).status == 202, BACK_SECONDS)
    assert end_and_audit(server, load, tmp_path / "ids") > 0


def end_and_audit(server, load, ids):
    """SIGTERM ends the load early; its ids are whole then."""
    load.terminate()
    end_load(load)
    return audit(server, ids)


def test_a_locked_database_delays_and_loses_nothing(weir):
    server = weir(PROCESSING_TIMEOUT_SECONDS=1)
    before = post(server, "before")
    drained(server)
    lock = hold_database(server)
    ids = [post(server, f"locked{number}") for number in range(50)]
    # What was there can be read, what is new waits; wait=stored gives up at its time.
    assert [one["id"] for one in events(server)] == [before]
    answer = server.post("/api/events?wait=stored", event("waits"))
    assert answer.status == 202 and answer.json["status"] == "accepted", answer
    ids.append(answer.json["id"])
    assert metric(server, "event_queue_size") == 51
    lock.rollback()
    lock.close()
    until(lambda: metric(server, "event_queue_size") == 0, BACK_SECONDS)
    found = [one["id"] for one in events(server)]
    assert found == [before, *ids]
    assert metric(server, 'ingest_dlq_total{reason="refused"}') == 0


def test_a_locked_database_under_load_loses_nothing_and_comes_back(weir, tmp_path):
    server = weir()
    ids = tmp_path / "ids"
    load = start_load(server, connections=32, seconds=4, rate=3000, ids=ids)
    until(lambda: metric(server, "events_ingested_total") > 1000)
    lock = hold_database(server)
    taken = metric(server, "events_ingested_total")
    until(lambda: metric(server, "events_ingested_total") > taken + 3000)  # a second of load
    lock.rollback()
    lock.close()
    got = end_load(load)
    assert got["errors"] == 0 and got["broken"] == 0
    until(lambda: metric(server, "event_queue_size") == 0, BACK_SECONDS)
    assert audit(server, ids) == got["events"]


def test_commands_while_the_database_is_locked_end_with_a_line(weir):
    server = weir()
    lock = hold_database(server)
    done = server.command("org", "create", "late", check=False)
    if done.returncode != 0:
        assert done.stderr.startswith("weir: ") and done.stderr.count("\n") == 1
    lock.rollback()
    lock.close()
    until(lambda: server.command("org", "create", "later", check=False).returncode == 0, BACK_SECONDS)


# --- the disk ---------------------------------------------------------------------------------------------


@pytest.mark.local_journal_alone
def test_below_the_reserve_nothing_is_accepted_and_it_comes_back(weir, tmp_path):
    """As any user: the reserve is set just below what is free, and a file takes it away."""
    probe = weir(start=False)
    free_mb = shutil.disk_usage(probe.data_dir.parent).free >> 20
    server = weir(DISK_RESERVE_MB=free_mb - FILL_MB // 2)
    ids = tmp_path / "ids"
    load = start_load(server, connections=8, seconds=60, rate=500, ids=ids)
    until(lambda: metric(server, "events_ingested_total") > 100)
    filler = server.data_dir.parent / "filler"
    with open(filler, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, FILL_MB << 20)
        refused = until(lambda: refusal(server))
        problem_with_retry(refused, 503, "journal_unavailable")
        ready = server.get("/health/ready", key=None)
        assert ready.status == 503 and ready.json["parts"]["journal"]["status"] == "degraded"
        assert server.get("/health/intake", key=None).status == 503
        assert server.get("/health/live", key=None).status == 200
        # What was acknowledged goes on into the store.
        until(lambda: metric(server, "event_queue_size") == 0)
        assert server.get("/api/inbox").status == 200
    filler.unlink()
    until(lambda: server.post("/api/events", event("back")).status == 202, BACK_SECONDS)
    assert server.get("/health/ready", key=None).status == 200
    assert end_and_audit(server, load, ids) > 0


def refusal(server):
    answer = server.post("/api/events", event("refused?"))
    return answer if answer.status != 202 else None


def private_mounts():
    """Words that give a command mounts of its own: as root, or with a user namespace; None: neither."""
    for words in (["unshare", "-m"], ["unshare", "-U", "-r", "-m"]):
        if subprocess.run([*words, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True).returncode == 0:
            return words
    return None


# With PostgreSQL elsewhere the journal's own files are all there is on the disk: they are reused, and without
# a reserve a full disk stops nothing.
@pytest.mark.local_journal_alone
@pytest.mark.parametrize("reserve_mb", [0, 8] if STORE == "sqlite" else [8])
def test_a_full_disk_under_load_loses_nothing_and_comes_back(weir, tmp_path, reserve_mb):
    """A tmpfs of 96 MB that only the server sees, filled to the last byte; without the right to mount, a
    limit on the size of files stands in for it."""
    mounts = private_mounts()
    settings = {"DISK_RESERVE_MB": reserve_mb, "JOURNAL_SEGMENT_MB": 4, "JOURNAL_REPLAY_SECONDS": 0}
    data = tmp_path / "small"
    data.mkdir()
    if mounts is None:
        file_size_limit(weir, tmp_path, settings)
        return
    script = f'mount -t tmpfs -o size=96m none "{data}" && exec "$@"'
    server = weir(data_dir=data / "data", wrap=[*mounts, "sh", "-c", script, "sh"], **settings)
    inside = f"/proc/{server.process.pid}/root{data}"
    ids = tmp_path / "ids"
    load = start_load(server, connections=16, seconds=60, rate=1000, ids=ids)
    until(lambda: metric(server, "events_ingested_total") > 300)
    with open(f"{inside}/filler", "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 65536)
        except OSError:
            pass
        refused = until(lambda: refusal(server))
        problem_with_retry(refused, 503, "journal_unavailable")
        time.sleep(1)  # the load goes on against the full disk; nothing waits for this
    os.unlink(f"{inside}/filler")
    until(lambda: server.post("/api/events", event("back")).status == 202, BACK_SECONDS)
    until(lambda: server.get("/health/ready", key=None).status == 200, BACK_SECONDS)
    assert end_and_audit(server, load, ids) > 0
    # Nothing acknowledged is lost over a restart either.
    drained(server)
    known = {one["id"] for one in events(server)}
    copy = tmp_path / "copy"
    server_stop_and_copy(server, f"{inside}/data", copy)
    same = {name: value for name, value in server.settings.items() if name == "DATABASE_URL"}
    again = weir(start=False, data_dir=copy, **same)
    again.key = server.key
    again.start()
    drained(again)
    assert {one["id"] for one in events(again)} == known


def server_stop_and_copy(server, inside, copy):
    """The mount goes with the server, so its files are copied first; a copy of a running server's directory
    would not be consistent, so it is stopped in the middle of nothing (SIGSTOP)."""
    import signal
    os.kill(server.process.pid, signal.SIGSTOP)
    shutil.copytree(inside, copy, ignore=shutil.ignore_patterns("weir.sock"))
    os.kill(server.process.pid, signal.SIGCONT)
    server.kill()


def file_size_limit(weir, tmp_path, settings):
    """No file of the server may grow above 4 MB: the database soon cannot take more, the journal's segments
    can. Without the limit everything acknowledged is applied."""
    server = weir(data_dir=tmp_path / "data", wrap=["prlimit", "--fsize=4500000"], **settings)
    load = start_load(server, connections=16, seconds=5, rate=2000, ids=tmp_path / "ids")
    end_load(load)
    server.kill()
    server.wrap = []
    server.start()
    assert audit(server, tmp_path / "ids") > 0
