"""Promise: after a stop of any kind the server starts by itself, serves everything that was acknowledged and
is not damaged on disk, and says what it found (I5, R5)."""
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import time

import pytest

from black_box import drained, event, events, head, metric, post, until
from conftest import JOURNAL

PAGE = 4096


def segments(server):
    """The segments that hold commits, oldest first; a start may go over to a second one soon."""
    named = sorted(one for one in server.data_dir.glob("journal/*.seg") if not one.name.startswith("spare"))
    return [one for one in named if commits(one)]


def log_of(server):
    return "".join(server.log)


def commits(path):
    """Offsets of the pages of a segment that hold something, behind its header page."""
    data = path.read_bytes()
    return [at for at in range(PAGE, len(data), PAGE) if data[at:at + PAGE].strip(b"\0")]


def test_a_clean_stop_and_a_restart(weir):
    server = weir()
    ids = [post(server, number) for number in range(100)]
    assert server.stop() == 0
    assert not any('"error"' in line for line in server.log)
    server.start()
    assert JOURNAL != "local" or "clean stop" in log_of(server) and "0 bytes torn" in log_of(server)
    drained(server)
    assert [one["id"] for one in events(server)] == ids
    ids.append(post(server, 100))
    drained(server)
    assert [one["id"] for one in events(server)] == ids


def test_what_was_not_applied_is_applied_after_a_kill(weir):
    server = weir(APPLY_PAUSED=1)
    ids = [post(server, number) for number in range(100)]
    server.kill()
    server.settings["APPLY_PAUSED"] = "0"
    server.start()
    assert JOURNAL != "local" or "unclean stop" in log_of(server)
    drained(server)
    found = [one["id"] for one in events(server)]
    # The lanes of a node that died come to who shares its stream in two halves, each in its own order.
    assert found == ids if JOURNAL == "local" else sorted(found) == sorted(ids)


@pytest.mark.local_journal_alone
def test_a_torn_tail_is_cut_and_counted(weir):
    server = weir(APPLY_PAUSED=1)
    ids = [post(server, number) for number in range(20)]
    server.kill()
    path = segments(server)[-1]
    pages = commits(path)
    data = bytearray(path.read_bytes())
    # What a crash in the middle of the next commit leaves: its first 512 bytes, the rest never written. They
    # are the last commit's own bytes, altered, so that they look right until the checksum is taken.
    end = pages[-1] + PAGE
    data[end:end + 512] = data[pages[-1]:pages[-1] + 512]
    data[end + 100] ^= 1
    path.write_bytes(data)
    server.settings["APPLY_PAUSED"] = "0"
    server.start()
    torn = re.search(r"(\d+) bytes torn, (\d+) bytes damaged", log_of(server))
    assert torn and int(torn.group(2)) == 0, log_of(server)
    drained(server)
    assert [one["id"] for one in events(server)] == ids
    ids += [post(server, f"after{number}") for number in range(5)]
    drained(server)
    assert [one["id"] for one in events(server)] == ids


@pytest.mark.local_journal_alone
def test_flipped_bits_are_quarantined_and_the_rest_is_served(weir):
    server = weir(APPLY_PAUSED=1)
    ids = [post(server, number) for number in range(60)]  # each answered before the next: a commit each
    server.kill()
    path = max(segments(server), key=lambda one: len(commits(one)))
    pages = commits(path)
    assert len(pages) >= len(ids) // 2
    data = bytearray(path.read_bytes())
    damaged = pages[len(pages) // 2]
    data[damaged + 70] ^= 0x10  # within the commit, behind its head
    path.write_bytes(data)

    check = server.command("journal", "check", check=False)
    assert check.returncode == 1 and re.search(r"damaged bytes +[1-9]", check.stdout), check.stdout
    server.settings["APPLY_PAUSED"] = "0"
    server.start()
    assert re.search(r"[1-9]\d* bytes damaged", log_of(server))
    assert any(one.is_file() for one in (server.data_dir / "journal/quarantine").rglob("*"))
    drained(server)
    found = [one["id"] for one in events(server)]
    assert found == [one for one in ids if one in set(found)]
    assert len(found) == len(ids) - 1
    found.append(post(server, "after"))
    drained(server)
    assert [one["id"] for one in events(server)] == found


def upload(server, name):
    """A body that is kept in a file: its path, once it is applied."""
    lines = "\n".join(json.dumps(event(f"{name}-{number}", pad="x" * 200)) for number in range(2000))
    answer = server.post("/api/events/batch?wait=stored", lines, headers={"Content-Type": "application/x-ndjson"})
    assert answer.status == 201, answer
    return server.data_dir / "uploads" / f"{answer.json['upload_id']}.up"


@pytest.mark.sqlite_alone
@pytest.mark.local_journal_alone
def test_an_older_copy_of_the_database_is_told_of_and_costs_no_upload(weir, tmp_path):
    """What the journal has let go since cannot come back by itself: the log says so, and raw bodies that the copy
    does not know stay, also at later starts."""
    server = weir(JOURNAL_SEGMENT_MB=1, JOURNAL_REPLAY_SECONDS=0)
    known = upload(server, "known")
    assert server.stop() == 0
    shutil.copy(server.data_dir / "weir.db", tmp_path)
    server.start()
    unknown = upload(server, "unknown")
    before = set(server.data_dir.glob("journal/*.seg"))
    number = 0

    def are_gone():
        nonlocal number
        number += 1
        post(server, number, pad="x" * 100_000)
        return not before & set(server.data_dir.glob("journal/*.seg"))

    until(are_gone)
    assert server.stop() == 0
    for one in server.data_dir.glob("weir.db-*"):
        one.unlink()
    shutil.copy(tmp_path / "weir.db", server.data_dir)
    with contextlib.closing(sqlite3.connect(server.data_dir / "weir.db")) as database:
        database.execute("UPDATE uploads SET raw_deleted = 1")  # so that its file goes when all are looked at
        database.commit()
    server.start()
    assert "the store does not have them: it is an older copy" in log_of(server)
    assert metric(server, "journal_records_dropped_total") > 0
    until(lambda: not known.exists())
    assert unknown.exists()
    assert list(server.data_dir.glob("journal/quarantine/*"))  # which tells later starts
    assert server.stop() == 0
    server.start()
    assert "an older copy" not in log_of(server)  # of what is missing now nothing is news


def test_a_stale_lock_and_socket_do_not_stop_a_start(weir):
    server = weir()
    identity = post(server, 1)
    server.kill()
    assert (server.data_dir / "weir.sock").exists()
    server.start()
    drained(server)
    assert [one["id"] for one in events(server)] == [identity]
    assert "main" in server.command("org", "list").stdout


def begin_upload(server, megabytes):
    """Starts an upload and stays in the middle of it."""
    one = socket.create_connection(("127.0.0.1", server.port))
    one.sendall(head(server, path="/api/events/batch", Content_Type="application/x-ndjson", Content_Length=1 << 30))
    line = json.dumps(event("never", "never", payload={"pad": os.urandom(400).hex()})).encode() + b"\n"
    one.sendall(line * (megabytes * 1048576 // len(line)))
    return one


def test_an_upload_that_is_interrupted_leaves_nothing(weir):
    server = weir()
    one = begin_upload(server, 8)
    until(lambda: server.bodies()[1] > 0)
    one.close()
    until(lambda: server.bodies()[0] == [])
    identity = post(server, 1)
    drained(server)
    assert [one["id"] for one in events(server)] == [identity]


@pytest.mark.local_journal_alone  # whose blocks stand in a stream nobody knows for a day
def test_a_kill_in_the_middle_of_an_upload_leaves_nothing(weir):
    server = weir()
    one = begin_upload(server, 8)
    until(lambda: server.bodies()[1] > 0)
    server.kill()
    one.close()
    assert server.bodies()[0] != []
    server.start()
    until(lambda: server.bodies()[0] == [])
    identity = post(server, 1)
    drained(server)
    assert [one["id"] for one in events(server)] == [identity]


def test_a_kill_in_the_middle_of_applying_an_upload_applies_each_element_once(weir):
    server = weir(APPLY_PAUSED=1)
    count = 30000
    body = "\n".join(json.dumps({"type": "up", "payload": {"n": number}}) for number in range(count))
    answer = server.post("/api/events/batch", body, headers={"Content-Type": "application/x-ndjson"})
    assert answer.status == 202 and answer.json["accepted"] == count and answer.json["upload_id"]
    server.kill()
    server.settings["APPLY_PAUSED"] = "0"
    for _ in range(6):
        server.start(wait=False)
        time.sleep(0.12)  # the random instant: somewhere in the middle of applying
        server.kill()
    server.start()
    drained(server)
    progress = server.get(f"/api/v1/uploads/{answer.json['upload_id']}").json
    assert progress["state"] == "processed", progress
    numbers = [one["payload"]["n"] for one in events(server)]
    assert sorted(numbers) == list(range(count))


def test_a_stopped_process_answers_after_it_goes_on(weir):
    """SIGSTOP and SIGCONT: timers that fell due meanwhile do no harm."""
    server = weir()
    connection = server.connect()
    connection.request("GET", "/health/live")
    assert connection.getresponse().read()
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        connection.request("POST", "/api/events", json.dumps(event(1)), {"X-API-Key": server.key,
                                                                         "Content-Type": "application/json"})
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    answer = connection.getresponse()
    assert answer.status == 202 and isinstance(answer, http.client.HTTPResponse)
    connection.close()
