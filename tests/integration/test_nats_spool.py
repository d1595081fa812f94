"""Promise: with JOURNAL_SPOOL=1 what comes while NATS takes nothing is acknowledged, forwarded in its order when NATS is
back, and stored once, whichever process is killed, stopped or paused, and whichever of them starts first."""
import contextlib
import json
import os
import shutil
import signal
import socket
import threading

import pytest

from black_box import audit, drained, end_load, event, events, head, metric, post, read_answer, start_load, until
from test_bad_input import refused_start
from test_batch import NDJSON
from test_nats import nats, numbers, ready  # noqa: F401 (a fixture)
from test_nats_nodes import Nodes
from test_outages import private_mounts

BACK_SECONDS = 10


def spooling(server):
    return ready(server).json["parts"]["spool"]["status"] == "degraded"


def forwarded(server):
    until(lambda: not spooling(server))
    assert metric(server, "spool_frames") == 0
    drained(server)


def until_spooling(server):
    until(lambda: spooling(server), BACK_SECONDS)


def body_of(first, count, text="x" * 1000):
    """A line each, the next number."""
    return "".join(json.dumps({**event(n), "payload": {"number": n, "text": text}}) + "\n"
                   for n in range(first, first + count)).encode()


def upload(server, body, query=""):
    answer = server.post("/api/events/batch" + query, body, headers=NDJSON)
    assert answer.status == 202 and answer.json["durability"] == "fsync", answer
    return answer.json


def spool_files(server):
    return sorted(one.name for one in (server.data_dir / "spool/uploads").iterdir())


def until_processed(server, sent):
    until(lambda: server.get(f"/api/v1/uploads/{sent['upload_id']}").json.get("state") == "processed")


def in_order(server):
    return [one["payload"]["number"] for one in events(server)]


def test_it_takes_over_and_forwards_in_order(weir, nats):  # noqa: F811
    one = nats()
    server = weir(NATS_URL=one.url, JOURNAL_SPOOL=1)
    answer = server.post("/api/events?wait=stored", event(0, subject="s"))
    assert answer.status == 201 and ready(server).json["parts"]["spool"] == {"status": "ok"}, answer
    one.kill()
    until_spooling(server)
    last = None
    for number in range(1, 200):
        answer = server.post("/api/events", event(number, subject="s"))
        assert answer.status == 202 and answer.json["durability"] == "fsync", answer
        last = answer.json["position"]
    answer = server.post("/api/events?wait=stored", event(200, subject="s"))
    assert answer.status == 202 and answer.json["durability"] == "fsync", "nobody knows when it will be"
    health = ready(server)
    assert health.status == 200 and health.json["status"] == "degraded", health
    assert health.json["parts"]["spool"]["frames"] == 200 and health.json["parts"]["journal"]["status"] == "ok"
    assert server.get("/health/intake", key=None).status == 200
    assert metric(server, "spool_frames") == 200 and metric(server, "event_queue_size") == 200
    assert in_order(server) == [0], "what is stored can be read meanwhile"
    one.start()
    server.wait_applied(last)
    forwarded(server)
    assert in_order(server) == list(range(201)), "one subject, in the order of the answers"
    answer = server.post("/api/events", event(201, subject="s"))
    assert answer.status == 202 and answer.json["durability"] == "jetstream", answer
    server.wait_applied(last)
    drained(server)
    assert in_order(server) == list(range(202))
    assert ready(server).json["status"] == "ok" and metric(server, "spool_forwarded_total") == 200
    assert metric(server, "dedup_duplicates_total") == 0
    assert any("takes over" in line for line in server.log) and any("drained" in line for line in server.log)


@pytest.mark.seconds(6)
@pytest.mark.parametrize("how", ["killed", "stopped", "paused"])
def test_nats_goes_and_comes_under_load(weir, nats, tmp_path, how):  # noqa: F811
    """Every request of the load is acknowledged: none is answered with an error."""
    one = nats()
    server = weir(NATS_URL=one.url, JOURNAL_SPOOL=1)
    process = start_load(server, connections=16, seconds=600, rate=400, ids=tmp_path / "ids")
    until(lambda: metric(server, "events_ingested_total") > 100)
    for _ in range(2):
        if how == "paused":
            one.signal(signal.SIGSTOP)
        elif how == "stopped":
            one.signal(signal.SIGTERM)
            one.process.wait()
        else:
            one.kill()
        until_spooling(server)
        taken = metric(server, "events_ingested_total")
        until(lambda: metric(server, "events_ingested_total") > taken + 200)
        if how == "paused":
            one.signal(signal.SIGCONT)
        else:
            one.start()
        until(lambda: not spooling(server))
    process.terminate()
    assert end_load(process)["errors"] == 0
    forwarded(server)
    assert server.post("/api/events?wait=stored", event(-1)).status == 201
    assert audit(server, tmp_path / "ids") > 0
    assert metric(server, "journal_records_dropped_total") == 0


@pytest.mark.seconds(10)
def test_weir_is_killed_while_nats_is_away(weir, nats, tmp_path):  # noqa: F811
    """Again and again, with starts that do not meet NATS, and once while the spool is being emptied. Events without a
    dedup_id too: what is forwarded twice is stored once."""
    one = nats()
    server = weir(NATS_URL=one.url, JOURNAL_SPOOL=1)
    plain = [server.post("/api/events", {"type": "plain", "payload": {}}).json["id"]]
    one.kill()
    for _ in range(3):
        process = start_load(server, connections=16, seconds=600, rate=1000, ids=tmp_path / "ids")
        taken = metric(server, "events_ingested_total")
        until(lambda: metric(server, "events_ingested_total") > taken + 500)
        plain.append(server.post("/api/events", {"type": "plain", "payload": {}}).json["id"])
        server.kill()
        process.terminate()
        process.communicate(timeout=60)
        server.start()
        until_spooling(server)
    one.start()
    until(lambda: metric(server, "spool_forwarded_total") > 100)
    server.kill()
    server.start()
    forwarded(server)
    assert audit(server, tmp_path / "ids") > 1500
    assert sorted(one["id"] for one in events(server, "&type=plain")) == sorted(plain)
    assert metric(server, "journal_records_dropped_total") == 0


def test_a_clean_stop_keeps_what_is_not_forwarded(weir, nats):  # noqa: F811
    one = nats()
    server = weir(NATS_URL=one.url, JOURNAL_SPOOL=1)
    post(server, 0)
    drained(server)
    one.kill()
    until_spooling(server)
    for number in range(1, 50):
        post(server, number)
    assert server.stop() == 0
    server.start()
    assert spooling(server) and metric(server, "event_queue_size") == 49
    one.start()
    forwarded(server)
    assert numbers(server) == list(range(50))
    assert server.stop() == 0
    server.start()
    assert numbers(server) == list(range(50)) and metric(server, "spool_forwarded_total") == 0


def test_a_full_stream_spools(weir, nats):  # noqa: F811
    one = nats()
    one.make_stream(max_bytes=200_000)
    server = weir(NATS_URL=one.url, JOURNAL_SPOOL=1, APPLY_PAUSED=1)
    for number in range(50):
        post(server, number, payload={"number": number, "text": "x" * 5000}, subject="s")
    assert spooling(server)
    server.stop()
    server.settings["APPLY_PAUSED"] = "0"
    server.settings["JOURNAL_REPLAY_SECONDS"] = "0"
    server.start()
    forwarded(server)
    assert in_order(server) == list(range(50))


def test_the_backlog_counts_the_spool(weir, nats):  # noqa: F811
    one = nats()
    server = weir(NATS_URL=one.url, JOURNAL_SPOOL=1, JOURNAL_MAX_MB=16)
    post(server, "first")
    one.kill()
    until_spooling(server)
    body = {"text": "x" * 100_000}
    taken = 0
    while (answer := server.post("/api/events", event(taken, payload=body))).status == 202:
        taken += 1
    assert answer.status == 429 and answer.json["code"] == "queue_full" and 70 < taken < 84, (answer, taken)
    server.kill()
    server.start()
    assert server.post("/api/events", event(-1, payload=body)).status == 429, "it is counted after a restart, too"
    one.start()
    forwarded(server)
    assert server.post("/api/events?wait=stored", event(-1, payload=body)).status == 201
    assert len(events(server)) == taken + 2


def test_large_bodies_are_kept_and_forwarded(weir, nats):  # noqa: F811
    """Byte for byte; then nothing of them is left in the spool."""
    one = nats()
    server = weir(NATS_URL=one.url, JOURNAL_SPOOL=1)
    one.kill()
    until_spooling(server)
    body = body_of(1, 500)
    post(server, 0)
    sent = upload(server, body, "?wait=stored")
    post(server, 501)
    assert sent["accepted"] == 500 and spool_files(server) == [sent["upload_id"] + ".up"]
    assert metric(server, "event_queue_size") == 502
    one.start()
    forwarded(server)
    until_processed(server, sent)
    assert numbers(server) == list(range(502)) and spool_files(server) == []
    assert server.bodies()[0] == ["weir.uploads." + sent["upload_id"]]
    assert server.get(f"/api/v1/uploads/{sent['upload_id']}/raw").body == body
    answer = server.post("/api/events/batch?wait=stored", body_of(600, 500), headers=NDJSON)
    assert answer.status == 201, "to the stream again"
    assert metric(server, "dedup_duplicates_total") == 0


@pytest.mark.seconds(8)
@pytest.mark.parametrize("victim", ["weir", "nats"])
def test_a_kill_while_a_body_is_forwarded(weir, nats, victim):  # noqa: F811
    """At several places; also before anything of it went, and after all of it did."""
    one = nats()
    server = weir(NATS_URL=one.url, JOURNAL_SPOOL=1)
    count = 0
    for blocks in (0, 1, 5, 20, 40):
        one.kill()
        until_spooling(server)
        body = b"".join(body_of(count + n, 1, os.urandom(10_000).hex()) for n in range(300))
        sent = upload(server, body)
        post(server, count + 300)
        count += 301
        if victim == "weir":
            server.kill()
            server.start()
            assert metric(server, "event_queue_size") == 301, "it is counted after a restart, too"
        one.start()
        before = one.stream("weir_uploads")["state"]["messages"]
        until(lambda: one.stream("weir_uploads")["state"]["messages"] >= before + blocks or spool_files(server) == [])
        if victim == "weir":
            server.kill()
            server.start()
        else:
            one.kill()
            one.start()
        forwarded(server)
        until_processed(server, sent)
        assert server.get(f"/api/v1/uploads/{sent['upload_id']}/raw").body == body
        assert spool_files(server) == []
    assert numbers(server) == list(range(count))
    assert len(server.bodies()[0]) == 5 and metric(server, "journal_records_dropped_total") == 0


def send_half(server, body):
    """The first part of an upload, on a connection that stays open."""
    one = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    one.sendall(head(server, path="/api/events/batch", close=False, Content_Length=len(body), **NDJSON))
    one.sendall(body[:len(body) // 2])
    return one


def test_a_body_that_begins_in_the_spool_and_ends_after_it(weir, nats):  # noqa: F811
    one = nats()
    server = weir(NATS_URL=one.url, JOURNAL_SPOOL=1)
    one.kill()
    until_spooling(server)
    body = body_of(0, 1500)
    with send_half(server, body) as connection:
        until(lambda: spool_files(server))
        one.start()
        until(lambda: not spooling(server))
        post(server, 1500)
        connection.sendall(body[len(body) // 2:])
        status, _, answer = read_answer(connection)
        assert status == 202 and json.loads(answer)["accepted"] == 1500, answer
    forwarded(server)
    until_processed(server, json.loads(answer))
    assert numbers(server) == list(range(1501)) and spool_files(server) == []


def test_nats_goes_in_the_middle_of_a_body(weir, nats):  # noqa: F811
    """What of it is in the stream cannot be had: it is refused whole, and may come again."""
    one = nats()
    server = weir(NATS_URL=one.url, JOURNAL_SPOOL=1)
    body = body_of(0, 1500)
    with send_half(server, body) as connection:
        until(lambda: server.bodies()[0])
        one.kill()
        connection.sendall(body[len(body) // 2:])
        status, _, answer = read_answer(connection)
        assert status == 503 and json.loads(answer)["code"] == "journal_unavailable", answer
    sent = upload(server, body)
    one.start()
    forwarded(server)
    until_processed(server, sent)
    assert numbers(server) == list(range(1500)) and metric(server, "dedup_duplicates_total") == 0


def test_a_body_that_is_damaged_in_the_spool(weir, nats):  # noqa: F811
    """It fails, and says so; what is behind it is forwarded all the same, and its file stays."""
    one = nats()
    server = weir(NATS_URL=one.url, JOURNAL_SPOOL=1)
    one.kill()
    until_spooling(server)
    sent = upload(server, b"".join(body_of(n, 1, os.urandom(10_000).hex()) for n in range(100)))
    post(server, 100)
    file = server.data_dir / "spool/uploads" / (sent["upload_id"] + ".up")
    bytes_ = bytearray(file.read_bytes())
    bytes_[len(bytes_) // 2] ^= 1
    file.write_bytes(bytes_)
    one.start()
    until(lambda: not spooling(server))
    until(lambda: server.get(f"/api/v1/uploads/{sent['upload_id']}").json.get("state") == "failed")
    assert 100 in numbers(server) and spool_files(server) == [sent["upload_id"] + ".up"]


class Spooling(Nodes):
    """Two nodes on one database and one stream, each with a spool."""

    def __init__(self, weir, database_server, one):
        super().__init__(weir, database_server, one, JOURNAL_SPOOL="1")


def test_another_node_waits_for_what_is_in_the_spool(weir, database_server, nats):  # noqa: F811
    """`wait_for` with a position of the spool, asked elsewhere; and the body of an upload is read there."""
    one = nats()
    nodes = Spooling(weir, database_server, one)
    post(nodes.a, 0)
    drained(nodes.a)
    one.kill()
    until_spooling(nodes.a)
    until_spooling(nodes.b)
    body = body_of(1, 500)
    sent = upload(nodes.a, body)
    position = nodes.a.post("/api/events", event(501)).json["position"]
    answers = []
    thread = threading.Thread(target=lambda: answers.append(nodes.b.get(f"/api/v1/events?wait_for={position}&limit=1")))
    thread.start()
    one.start()
    thread.join(60)
    assert answers[0].status == 200, answers
    assert 501 in numbers(nodes.b)
    forwarded(nodes.a)
    for node in (nodes.a, nodes.b):
        until_processed(node, sent)
        assert numbers(node) == list(range(502))
        assert node.get(f"/api/v1/uploads/{sent['upload_id']}/raw").body == body
        drained(node)
    assert nodes.b.get(f"/api/v1/events?wait_for={position}&limit=1").status == 200
    nodes.b.stop()
    nodes.b.start()
    assert nodes.b.get(f"/api/v1/events?wait_for={position}&limit=1").status == 200, "known from the store"


def test_erase_waits_for_the_spool_of_another_node(weir, database_server, nats):  # noqa: F811
    one = nats()
    nodes = Spooling(weir, database_server, one)
    one.kill()
    until_spooling(nodes.a)
    post(nodes.a, 1, subject="gone")
    answers = []
    thread = threading.Thread(target=lambda: answers.append(nodes.b.post("/api/v1/erase", {"subject": "gone"})))
    thread.start()
    one.start()
    thread.join(60)
    assert answers[0].status == 200 and answers[0].json["events"] == 1, answers
    forwarded(nodes.a)
    assert events(nodes.a) == [] and events(nodes.b) == []


def test_a_stream_of_another_store_is_left_alone(weir, nats, tmp_path):  # noqa: F811
    """After a start without NATS: it turns out whose the stream is when it is there, before anything goes to it."""
    one = nats()
    server = weir(NATS_URL=one.url, JOURNAL_SPOOL=1)
    post(server, 0)
    drained(server)
    server.stop()
    one.kill()
    before = server.data_dir / "weir.db"
    copy = tmp_path / "other"
    other = weir(start=False, data_dir=copy, DATABASE_URL="", NATS_URL="")
    other.start()
    other.stop()
    for name in ("weir.db", "weir.db-wal", "weir.db-shm"):
        if (copy / name).exists():
            shutil.copy(copy / name, before.parent / name)
        elif (before.parent / name).exists():
            (before.parent / name).unlink()
    server.key = other.key
    server.start()
    post(server, 1)
    one.start()
    part = until(lambda: ready(server).json["parts"]["spool"].get("reason") and ready(server).json["parts"]["spool"])
    assert "another store" in part["reason"] and part["frames"] == 1, part
    assert any("another store" in line and "nothing is forwarded" in line for line in server.log)
    assert one.stream()["state"]["messages"] == 1
    post(server, 2)
    assert ready(server).json["parts"]["spool"]["frames"] == 2


def test_erase_waits_for_the_spool(weir, nats):  # noqa: F811
    one = nats()
    server = weir(NATS_URL=one.url, JOURNAL_SPOOL=1)
    one.kill()
    until_spooling(server)
    post(server, 1, subject="gone")
    answers = []
    thread = threading.Thread(target=lambda: answers.append(server.post("/api/v1/erase", {"subject": "gone"})))
    thread.start()
    one.start()
    thread.join(60)
    forwarded(server)
    assert answers[0].status == 200, answers
    assert events(server) == []


def test_a_stream_that_was_replaced_meanwhile(weir, nats):  # noqa: F811
    """Nothing goes to it until a restart gives it a base above all that was applied."""
    one = nats()
    server = weir(NATS_URL=one.url, JOURNAL_SPOOL=1)
    before = server.post("/api/events?wait=stored", event(0)).json["position"]
    one.kill()
    until_spooling(server)
    post(server, 1)
    shutil.rmtree(one.folder / "store")
    one.start()
    one.make_stream()
    until(lambda: any("not the one" in line for line in server.log), 30)
    post(server, 2)
    assert numbers(server) == [0] and spooling(server)
    assert server.stop() == 0
    server.start()
    forwarded(server)
    after = server.post("/api/events?wait=stored", event(3)).json["position"]
    assert int(after, 16) > int(before, 16)
    assert numbers(server) == [0, 1, 2, 3]


@pytest.mark.seconds(10)
def test_the_first_start_needs_nats(weir, nats):  # noqa: F811
    one = nats()
    one.kill()
    line = refused_start(weir(start=False, NATS_URL=one.url, JOURNAL_SPOOL=1))
    assert "NATS_URL" in line, line


def test_without_a_stream_there_is_nothing_to_stand_in_for(weir):
    line = refused_start(weir(start=False, JOURNAL_SPOOL=1, NATS_URL=""))
    assert "JOURNAL_SPOOL" in line and "NATS_URL" in line, line


def test_what_is_in_the_spool_is_not_left_behind(weir, nats):  # noqa: F811
    one = nats()
    server = weir(NATS_URL=one.url, JOURNAL_SPOOL=1)
    one.kill()
    until_spooling(server)
    post(server, 1)
    assert server.stop() == 0
    one.start()
    server.settings["JOURNAL_SPOOL"] = "0"
    line = refused_start(server)
    assert "JOURNAL_SPOOL=1" in line, line
    server.settings["JOURNAL_SPOOL"] = "1"
    server.start()
    forwarded(server)
    assert server.stop() == 0
    server.settings["JOURNAL_SPOOL"] = "0"
    server.start()
    assert numbers(server) == [1]


def test_a_lost_state_is_made_good(weir, nats):  # noqa: F811
    """What the segments still hold is forwarded once more, and found to be there."""
    one = nats()
    server = weir(NATS_URL=one.url, JOURNAL_SPOOL=1)
    one.kill()
    until_spooling(server)
    for number in range(20):
        post(server, number)
    one.start()
    forwarded(server)
    assert server.stop() == 0
    state = server.data_dir / "spool" / "state"
    state.write_bytes(b"x" + state.read_bytes()[1:])
    server.start()
    forwarded(server)
    assert numbers(server) == list(range(20)) and metric(server, "spool_forwarded_total") == 20


def test_a_full_disk_under_the_spool(weir, nats, tmp_path):  # noqa: F811
    """A tmpfs that only the server sees: 503 while it is full, and nothing that was acknowledged is lost."""
    mounts = private_mounts()
    data = tmp_path / "small"
    data.mkdir()
    script = f'mount -t tmpfs -o size=64m none "{data}" && exec "$@"'
    one = nats()
    wrap = [*mounts, "sh", "-c", script, "sh"] if mounts else []
    server = weir(data_dir=data / "data", wrap=wrap, NATS_URL=one.url, JOURNAL_SPOOL=1, JOURNAL_SEGMENT_MB=1,
                  DISK_RESERVE_MB=8 if mounts else 1_000_000)
    if mounts:
        one.kill()
        until_spooling(server)
        for number in range(20):
            post(server, number)
        filler = f"/proc/{server.process.pid}/root{data}/filler"
        with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"\0" * 65536)
    else:  # a reserve that no disk has says the same
        for number in range(20):
            post(server, number)
        one.kill()
        until_spooling(server)
    until(lambda: server.post("/api/events", event(-1)).status == 503)
    answer = server.post("/api/events/batch", body_of(1000, 500), headers=NDJSON)
    assert answer.status == 503 and answer.json["code"] == "journal_unavailable", answer
    if mounts:
        os.unlink(filler)
        until(lambda: server.post("/api/events", event(20)).status == 202, BACK_SECONDS)
    one.start()
    forwarded(server)
    found = [number for number in numbers(server) if number >= 0]
    assert found == list(range(21 if mounts else 20))


@pytest.mark.seconds(6)
def test_load_never_keeps_the_spool_from_being_emptied(weir, nats, tmp_path):  # noqa: F811
    """As much as the server takes, on one lane: new frames come slower than old ones go, so it ends."""
    one = nats()
    server = weir(NATS_URL=one.url, JOURNAL_SPOOL=1)
    one.kill()
    until_spooling(server)
    process = start_load(server, connections=16, seconds=600, ids=tmp_path / "ids")
    until(lambda: metric(server, "spool_frames") > 2000)
    one.start()
    until(lambda: not spooling(server))
    process.terminate()
    end_load(process)
    forwarded(server)
    assert audit(server, tmp_path / "ids") > 2000


def test_a_pause_sends_nothing_twice(weir, nats):  # noqa: F811
    """What a paused server has in its buffers, and what the spool took of it, are one and the same."""
    one = nats()
    server = weir(NATS_URL=one.url, JOURNAL_SPOOL=1)
    one.signal(signal.SIGSTOP)
    threads = [threading.Thread(target=post, args=(server, number)) for number in range(8)]
    for thread in threads:
        thread.start()
    until_spooling(server)
    one.signal(signal.SIGCONT)
    for thread in threads:
        thread.join()
    forwarded(server)
    assert numbers(server) == list(range(8))
    assert metric(server, "dedup_duplicates_total") == 0, "what was sent twice had one id in the stream"
    assert one.stream()["state"]["messages"] == 8
