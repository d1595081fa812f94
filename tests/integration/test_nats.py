"""Promise: with NATS_URL the journal is a stream of JetStream: what was acknowledged is applied once, whichever process
is killed, stopped or away; what cannot work is one clear line without the password; it comes back by itself."""
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time

import pytest

from black_box import SLOWER, audit, drained, end_load, event, events, metric, post, start_load, until
from conftest import BINARY, nats_server
from test_bad_input import refused_start
from test_outages import hold_database, private_mounts

BACK_SECONDS = 10


@pytest.fixture
def nats():
    servers = []

    def make(**options):
        servers.append(nats_server.Nats(**options))
        return servers[-1]

    yield make
    for one in servers:
        one.close()


def ready(server):
    return server.get("/health/ready", key=None)


def until_back(server):
    until(lambda: ready(server).status == 200, BACK_SECONDS)


def numbers(server):
    return sorted(one["payload"]["number"] for one in events(server))


def test_one_event_and_many(weir, nats):
    one = nats()
    server = weir(NATS_URL=one.url)
    answer = server.post("/api/events", event(1))
    assert answer.status == 202 and answer.json["durability"] == "jetstream", answer
    answer = server.post("/api/events?wait=stored", event(2))
    assert answer.status == 201 and answer.json["durability"] == "stored", answer
    answer = server.post("/api/v1/events/batch?wait=stored", [event(n) for n in range(3, 500)])
    assert answer.status == 201 and answer.json["accepted"] == 497, answer
    lines = "".join(json.dumps({**event(n), "payload": {"number": n, "text": "x" * 500}}) + "\n" for n in range(500, 2000))
    answer = server.post("/api/v1/events/batch?wait=stored", lines, headers={"Content-Type": "application/x-ndjson"})
    assert answer.status == 201 and answer.json["accepted"] == 1500 and answer.json["upload_id"], answer
    assert numbers(server) == list(range(1, 2000))
    state = one.stream()["state"]
    assert state["messages"] == 4 and state["last_seq"] == 4, "each alone is a message, an upload's end record too"
    assert set(one.ask("$JS.API.CONSUMER.NAMES.weir")["consumers"]) == {"ingest_workers"}
    consumer = one.ask("$JS.API.CONSUMER.INFO.weir.ingest_workers")
    assert consumer["config"]["max_deliver"] == -1 and consumer["num_pending"] == 0
    until(lambda: one.ask("$JS.API.CONSUMER.INFO.weir.ingest_workers")["num_ack_pending"] == 0)


def test_positions_rise_over_restarts(weir, nats):
    server = weir(NATS_URL=nats(user="weir", password="geheim").url)
    first = server.post("/api/events?wait=stored", event(1)).json["position"]
    assert server.stop() == 0
    server.start()
    second = server.post("/api/events?wait=stored", event(2)).json["position"]
    assert int(first, 16) + 16 == int(second, 16), "a message has sixteen positions"
    assert numbers(server) == [1, 2]


def test_what_is_not_applied_waits_in_the_stream(weir, nats):
    server = weir(NATS_URL=nats().url, APPLY_PAUSED=1)
    for number in range(100):
        post(server, number)
    assert events(server) == [] and server.kill() is not None
    server.settings["APPLY_PAUSED"] = "0"
    server.start()
    drained(server)
    assert numbers(server) == list(range(100))
    drained(server)


def test_weir_is_killed_under_load(weir, nats, tmp_path):
    server = weir(NATS_URL=nats().url)
    for _ in range(3):
        process = start_load(server, connections=16, seconds=2, ids=tmp_path / "ids")
        time.sleep(1)
        server.kill()
        process.communicate(timeout=60)
        server.start()
    assert audit(server, tmp_path / "ids") > 0


@pytest.mark.seconds(12)
@pytest.mark.parametrize("how", ["killed", "stopped", "paused"])
def test_nats_goes_and_comes_under_load(weir, nats, tmp_path, how):
    one = nats()
    server = weir(NATS_URL=one.url)
    process = start_load(server, connections=16, seconds=6, rate=3000, ids=tmp_path / "ids")
    for _ in range(2):
        time.sleep(0.7)
        if how == "paused":
            one.signal(signal.SIGSTOP)
            time.sleep(1)
            one.signal(signal.SIGCONT)
        elif how == "stopped":
            one.signal(signal.SIGTERM)
            one.process.wait()
            time.sleep(0.3)
            one.start()
        else:
            one.kill()
            time.sleep(0.3)
            one.start()
        until_back(server)
    end_load(process)
    until_back(server)
    assert server.post("/api/events?wait=stored", event(-1)).status == 201
    assert audit(server, tmp_path / "ids") > 0


def test_away_is_said_at_once(weir, nats):
    one = nats()
    server = weir(NATS_URL=one.url)
    post(server, 1)
    drained(server)
    one.kill()
    until(lambda: ready(server).status == 503)
    assert ready(server).json["parts"]["journal"]["code"] == "unavailable"
    started = time.monotonic()
    answer = server.post("/api/events", event(2))
    assert answer.status == 503 and answer.json["code"] == "journal_unavailable" and "retry-after" in answer.headers, answer
    assert time.monotonic() - started < 2 * SLOWER, "it is known to be away: nothing is waited for"
    assert numbers(server) == [1], "what is stored can be read meanwhile"
    one.start()
    until_back(server)
    post(server, 2)
    drained(server)
    assert numbers(server) == [1, 2]


def test_what_is_applied_durably_is_purged(weir, nats):
    one = nats()
    server = weir(NATS_URL=one.url, JOURNAL_REPLAY_SECONDS=0)
    for number in range(50):
        post(server, number)
    until(lambda: one.stream()["state"]["messages"] == 0)
    server.kill()
    server.start()
    post(server, 50)
    drained(server)
    assert numbers(server) == list(range(51))


def test_what_is_to_be_replayed_is_kept(weir, nats):
    one = nats()
    server = weir(NATS_URL=one.url)
    post(server, 1)
    drained(server)
    server.stop()
    assert one.stream()["state"]["messages"] == 1


def test_a_full_stream_refuses(weir, nats):
    one = nats()
    one.make_stream(max_bytes=200_000)
    server = weir(NATS_URL=one.url, APPLY_PAUSED=1)
    taken = 0
    while True:
        answer = server.post("/api/events", {**event(taken), "payload": {"number": taken, "text": "x" * 5000}})
        if answer.status != 202:
            break
        taken += 1
    assert answer.status == 429 and answer.json["code"] == "queue_full", answer
    server.stop()
    server.settings["APPLY_PAUSED"] = "0"
    server.settings["JOURNAL_REPLAY_SECONDS"] = "0"
    server.start()
    until(lambda: server.post("/api/events", event(taken)).status == 202)
    drained(server)
    assert numbers(server) == list(range(taken + 1))


def test_a_stream_that_was_deleted_meanwhile(weir, nats):
    one = nats()
    server = weir(NATS_URL=one.url)
    before = server.post("/api/events?wait=stored", event(1)).json["position"]
    one.delete_stream()
    one.make_stream()
    one.kill()
    one.start()
    until(lambda: ready(server).status == 503)
    assert server.post("/api/events", event(2)).status == 503, "its numbers would begin again"
    server.stop()
    server.start()
    after = server.post("/api/events?wait=stored", event(2)).json["position"]
    assert int(after, 16) > int(before, 16)
    assert numbers(server) == [1, 2]


@pytest.mark.parametrize("limit, says", [
    ({"retention": "workqueue"}, "retention"), ({"discard": "old"}, "discard"), ({"storage": "memory"}, "storage"),
    ({"max_age": 3_600_000_000_000}, "max_age"), ({"max_msgs_per_subject": 10, "discard": "new"}, "max_msgs_per_subject"),
    ({"max_msg_size": 1000}, "max_msg_size"), ({"duplicate_window": 1_000_000_000}, "duplicate_window"),
    ({"no_ack": True}, "no_ack"),
])
def test_a_stream_with_other_limits(weir, nats, limit, says):
    one = nats()
    one.make_stream(**limit)
    line = refused_start(weir(start=False, NATS_URL=one.url))
    assert says in line and "weir" in line, line


def test_another_number_of_replicas(weir, nats):
    one = nats()
    one.make_stream()
    assert "NATS_REPLICAS" in refused_start(weir(start=False, NATS_URL=one.url, NATS_REPLICAS=3))


@pytest.mark.seconds(10)
def test_a_second_server_on_the_same_stream(weir, nats):
    one = nats()
    server = weir(NATS_URL=one.url)
    post(server, 1)
    drained(server)
    line = refused_start(weir(start=False, NATS_URL=one.url))
    assert "another store" in line, line
    assert server.stop() == 0
    copy = weir(start=False, NATS_URL=one.url)
    shutil.copytree(server.data_dir, copy.data_dir, ignore=shutil.ignore_patterns("weir.sock"))
    server.start()
    line = refused_start(copy)
    assert "another server" in line, line
    post(server, 2)
    drained(server)
    assert numbers(server) == [1, 2]


def test_uploads_in_a_stream_with_other_limits(weir, nats):
    one = nats()
    one.make_stream(name="weir_uploads", subject="weir.uploads.*", discard="old")
    line = refused_start(weir(start=False, NATS_URL=one.url))
    assert "discard" in line and "weir_uploads" in line, line


def test_a_stream_of_another_program(weir, nats):
    one = nats()
    one.make_stream(name="weir_uploads", subject="other.>")
    line = refused_start(weir(start=False, NATS_URL=one.url))
    assert "subjects" in line and "weir_uploads" in line, line


def random_lines(megabytes):
    return b"".join(json.dumps({**event(n), "payload": {"number": n, "text": os.urandom(4096).hex()}}).encode() + b"\n"
                    for n in range(megabytes * 128))


def test_an_upload_leaves_nothing_on_the_machine(weir, nats):
    """The machine is lost after the answer: another one, with the same store, applies it all and gives the body back."""
    one = nats()
    server = weir(NATS_URL=one.url, APPLY_PAUSED=1)
    body = random_lines(4)
    answer = server.post("/api/events/batch", body, headers={"Content-Type": "application/x-ndjson"})
    assert answer.status == 202 and answer.json["durability"] == "jetstream", answer
    server.kill()
    shutil.rmtree(server.data_dir / "uploads")
    server.settings["APPLY_PAUSED"] = "0"
    server.start()
    until(lambda: len(numbers(server)) == 512)
    assert server.get(f"/api/v1/uploads/{answer.json['upload_id']}/raw").body == body


def test_nats_is_away_for_a_moment_during_an_upload(weir, nats):
    """Some of the body comes before, some of it while NATS is away, and the rest after."""
    one = nats()
    server = weir(NATS_URL=one.url)
    body = random_lines(16)

    def pieces():
        before, away = 2 << 20, 1 << 19  # what is sent meanwhile fits in the socket
        yield body[:before]
        until(lambda: one.ask("$JS.API.STREAM.INFO.weir_uploads")["state"]["messages"] > 5)
        one.kill()
        until(lambda: server.get("/health/ready", key=None).status == 503)
        yield body[before:before + away]
        one.start()
        yield body[before + away:]

    answer = server.post("/api/events/batch?wait=stored", pieces(), headers={"Content-Type": "application/x-ndjson"})
    assert answer.status == 201 and answer.json["accepted"] == 2048, answer
    assert numbers(server) == list(range(2048))


@pytest.mark.seconds(8)
def test_nats_goes_during_an_upload(weir, nats):
    one = nats()
    server = weir(NATS_URL=one.url)
    body = random_lines(16)
    answers = []
    thread = threading.Thread(target=lambda: answers.append(
        server.post("/api/events/batch", body, headers={"Content-Type": "application/x-ndjson"})))
    thread.start()
    until(lambda: one.ask("$JS.API.STREAM.INFO.weir_uploads")["state"]["messages"] > 5)
    one.kill()
    thread.join()
    assert answers[0].status == 503 and answers[0].json["code"] == "journal_unavailable", answers
    one.start()
    until_back(server)
    answer = server.post("/api/events/batch?wait=stored", body, headers={"Content-Type": "application/x-ndjson"})
    assert answer.status == 201 and answer.json["accepted"] == 2048, answer
    assert numbers(server) == list(range(2048))


def test_a_wrong_password(weir, nats):
    one = nats(user="weir", password="geheim")
    server = weir(start=False, NATS_URL=one.url.replace("geheim", "falsch"))
    line = refused_start(server)
    assert "NATS_URL" in line and "password" in line and "falsch" not in line, line


def test_what_is_given_again_is_applied_once(weir, nats):
    """The database is locked for longer than NATS_ACK_WAIT, with more frames than may be under way."""
    one = nats()
    server = weir(NATS_URL=one.url, NATS_ACK_WAIT=1, NATS_MAX_ACK_PENDING=20, NATS_PULL_BATCH_SIZE=7)
    post(server, 0)
    drained(server)
    lock = hold_database(server)
    for number in range(1, 300):
        post(server, number)
    until(lambda: one.ask("$JS.API.CONSUMER.INFO.weir.ingest_workers")["num_redelivered"] > 0)
    lock.rollback()
    drained(server)
    assert numbers(server) == list(range(300))
    assert metric(server, "dedup_duplicates_total") == 0, "they were passed over before the store saw them"


def test_a_server_without_jetstream(weir, nats):
    line = refused_start(weir(start=False, NATS_URL=nats(jetstream=False).url))
    assert "JetStream" in line, line


def test_the_password_is_never_shown(tmp_path):
    done = subprocess.run([str(BINARY), "config"], cwd=tmp_path, capture_output=True, text=True, timeout=30,
                          env={"NATS_URL": "nats://weir:geheim@a:4222,nats://weir:noch@b:4222,nats://zeichen@c:4222"})
    shown = re.search("^NATS_URL=(.*)  #", done.stdout, re.M).group(1)
    assert not re.search("geheim|noch|zeichen", shown) and "@a" in shown, shown


@pytest.mark.parametrize("name, value", [("NATS_STREAM", "a.b"), ("NATS_STREAM", ""), ("NATS_SYNC", "never")])
def test_a_wrong_setting(weir, name, value):
    assert name in refused_start(weir(start=False, **{name: value}))


def test_frames_of_the_local_journal_are_not_left_behind(weir, nats):
    one = nats()
    server = weir(APPLY_PAUSED=1, NATS_URL="")
    post(server, 1)
    server.kill()
    server.settings["APPLY_PAUSED"] = "0"
    server.settings["NATS_URL"] = one.url
    assert "not applied" in refused_start(server)
    server.settings["NATS_URL"] = ""
    server.start()
    drained(server)
    server.stop()
    server.settings["NATS_URL"] = one.url
    server.start()
    post(server, 2)
    drained(server)
    assert numbers(server) == [1, 2]


def test_backup_says_who_makes_it(weir, nats):
    server = weir(NATS_URL=nats().url)
    done = server.command("backup", str(server.data_dir) + "-copy", check=False)
    assert done.returncode == 1 and "nats stream backup" in done.stderr


def test_many_at_once(weir, nats):
    """Each of many connections gets its own positions, and none twice."""
    server = weir(NATS_URL=nats().url)
    found = []

    def send(first):
        found.extend(server.post("/api/events", event(first + n)).json["position"] for n in range(50))

    threads = [threading.Thread(target=send, args=(first,)) for first in range(0, 800, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 800
    drained(server)
    assert numbers(server) == list(range(800))
    assert metric(server, "journal_records_dropped_total") == 0


def test_a_full_disk_under_the_database_stops_no_intake(weir, nats, tmp_path):
    """A tmpfs that only the server sees, filled to the last byte: what comes waits in the stream."""
    mounts = private_mounts()
    data = tmp_path / "small"
    data.mkdir()
    script = f'mount -t tmpfs -o size=96m none "{data}" && exec "$@"'
    wrap = [*mounts, "sh", "-c", script, "sh"] if mounts else ["prlimit", "--fsize=4500000"]
    server = weir(data_dir=data / "data", wrap=wrap, NATS_URL=nats().url, DISK_RESERVE_MB=0)
    ids = tmp_path / "ids"
    load = start_load(server, connections=16, seconds=60, rate=2000, **{"event-bytes": 2000, "ids": ids})
    until(lambda: metric(server, "events_ingested_total") > 300)
    filler = f"/proc/{server.process.pid}/root{data}/filler"
    if mounts:
        with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"\0" * 65536)
    until(lambda: metric(server, "event_queue_size") > 5000)
    assert ready(server).json["parts"]["journal"]["status"] == "ok", ready(server)
    load.terminate()
    assert end_load(load)["errors"] == 0
    if mounts:
        os.unlink(filler)
    else:
        server.kill()
        server.wrap = []
        server.start()
    assert audit(server, ids) > 5000


def test_a_stream_that_went_back_takes_no_new_record_for_an_old_one(weir, nats, tmp_path):
    """An older copy of what the server of NATS keeps is put in the place of it while a server of ours runs: numbers
    that were given and applied before are given again."""
    one = nats()
    server = weir(NATS_URL=one.url)

    def take(first, count):
        for number in range(first, first + count):
            until(lambda: server.post("/api/events", event(number)).status == 202)
        drained(server)

    take(0, 20)
    one.kill()
    shutil.copytree(one.folder / "store", tmp_path / "copy")
    one.start()
    take(20, 40)
    one.kill()
    shutil.rmtree(one.folder / "store")
    shutil.copytree(tmp_path / "copy", one.folder / "store")
    one.start()
    take(60, 60)
    assert numbers(server) == list(range(120))
    assert any("has lost messages" in line for line in server.log)


def test_what_the_stream_loses_before_it_is_applied_comes(weir, nats):
    """Acknowledged by JetStream, and gone from it before anybody has read it: events, a batch, the end of an upload."""
    one = nats()
    server = weir(NATS_URL=one.url, NATS_MAX_ACK_PENDING=1, NATS_PULL_BATCH_SIZE=1)
    post(server, 0)
    drained(server)
    lock = hold_database(server)
    for number in range(1, 40):
        post(server, number)
    assert server.post("/api/events/batch", [event(number) for number in range(40, 60)]).status == 202
    lines = "".join(json.dumps({**event(n), "payload": {"number": n, "text": "x" * 500}}) + "\n" for n in range(60, 1060))
    answer = server.post("/api/events/batch", lines, headers={"Content-Type": "application/x-ndjson"})
    assert answer.status == 202 and answer.json["upload_id"], answer
    last = one.stream()["state"]["last_seq"]
    assert last == 42
    for number in (10, 11, 12, 30, last - 1, last):
        assert one.ask("$JS.API.STREAM.MSG.DELETE.weir", {"seq": number})["success"]
    lock.rollback()
    drained(server)
    until(lambda: server.get(f"/api/v1/uploads/{answer.json['upload_id']}").json["state"] == "processed")
    assert numbers(server) == list(range(1060))
    assert metric(server, "journal_resent_frames_total") >= 6
    assert metric(server, "dedup_duplicates_total") == 0


def test_an_older_copy_of_the_stream_without_what_waits_loses_nothing(weir, nats, tmp_path):
    """What was acknowledged and is not applied is not in it."""
    one = nats()
    server = weir(NATS_URL=one.url, NATS_MAX_ACK_PENDING=1, NATS_PULL_BATCH_SIZE=1)
    for number in range(20):
        post(server, number)
    drained(server)
    lock = hold_database(server)
    one.kill()
    shutil.copytree(one.folder / "store", tmp_path / "copy")
    one.start()
    until_back(server)
    for number in range(20, 60):
        post(server, number)
    one.kill()
    shutil.rmtree(one.folder / "store")
    shutil.copytree(tmp_path / "copy", one.folder / "store")
    one.start()
    lock.rollback()
    drained(server)
    assert numbers(server) == list(range(60))
