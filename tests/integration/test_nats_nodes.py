"""Promise: nodes that have their store (PostgreSQL) and their journal (a stream of NATS) in common are one service: any
of them applies what any of them accepted, once; who waits is answered by the node that he asked; when one dies the
others have its work within ten seconds."""
import json
import re
import signal
import threading
import time

import pytest

from black_box import audit, drained, event, events, metric, post, start_load, until
from conftest import nats_server, postgres_server
from test_bad_input import refused_start

pytestmark = pytest.mark.sqlite_alone  # it brings its own PostgreSQL
NDJSON = {"Content-Type": "application/x-ndjson"}


@pytest.fixture(scope="module")
def nats():
    one = nats_server.Nats()
    yield one
    one.close()


class Nodes:
    """Two servers on one database and one stream."""

    def __init__(self, weir, database_server, nats, **more):
        self.server = database_server
        self.name = database_server.new_database()
        self.stream = self.name
        self.weir = weir
        self.settings = database_server.store_settings(self.name, 6, NATS_URL=nats.url, **more)
        self.a = self.another(key=None)
        self.b = self.another(key=self.a.key)

    def another(self, key):
        one = self.weir(start=False, **self.settings)
        one.settings["NATS_STREAM"] = self.stream
        one.key = key
        return one.start()

    def sql(self, text):
        return self.server.sql(text, self.name)

    def holders(self):
        return int(self.sql("SELECT count(DISTINCT holder) FROM cursors WHERE holder <> 0"))

    def notify(self, message):
        self.sql(f"SELECT pg_notify('weir.public', '{message}')")

    def listen(self):
        """Gives a function: the numbers behind the sender's, in each message of a kind since now."""
        session = postgres_server.Lock(self.settings["DATABASE_URL"])
        session.rollback()
        session.run('LISTEN "weir.public";')
        heard = []

        def said(kind):
            session.run("SELECT 'end';")
            while (line := session.process.stdout.readline()) != "end\n":
                heard.extend(re.findall(r'with payload "(.*)" received', line))
            return [tuple(int(one) for one in words[2:]) for words in (one.split() for one in heard)
                    if words[0] == kind]

        return said

    def wait_until_shared(self):
        until(lambda: self.sql("SELECT max(n) FROM (SELECT count(*) n FROM cursors WHERE lane < 64 AND holder <> 0"
                               " GROUP BY holder) x") == "32", 20)


@pytest.fixture
def nodes(weir, database_server, nats):
    return Nodes(weir, database_server, nats)


def test_a_stream_is_of_one_store(nodes, nats, tmp_path):
    """Wherever that is moved to; one that no store has marked is the first's that comes."""
    post(nodes.a, 1)
    drained(nodes.a)
    url = nodes.settings["DATABASE_URL"]
    other = nodes.server.url(nodes.server.new_database())
    nodes.b.stop()
    nodes.b.settings["DATABASE_URL"] = other
    line = refused_start(nodes.b)
    assert "another store" in line and nodes.stream in line, line
    nodes.a.stop()
    moved = nodes.server.url(nodes.server.new_database())
    nodes.a.command("migrate-store", url, moved)
    nodes.a.settings["DATABASE_URL"] = moved
    nodes.a.start()
    post(nodes.a, 2)
    drained(nodes.a)
    assert numbers(nodes.a) == [1, 2]
    line = refused_start(nodes.b)
    assert "another store" in line, line
    nodes.a.stop()
    purged = nats.ask(f"$JS.API.STREAM.PURGE.{nodes.stream}_uploads", {"filter": f"{nodes.stream}.uploads.store"})
    assert purged["purged"] == 1
    nodes.b.start()
    line = refused_start(nodes.a)
    assert "another store" in line, line


def lines(first, count, text=""):
    return "".join(json.dumps({**event(n), "subject": f"s{n}", "payload": {"number": n, "text": text}}) + "\n"
                   for n in range(first, first + count))


def numbers(server):
    return sorted(one["payload"]["number"] for one in events(server))


def test_who_waits_is_answered_by_the_node_that_he_asked(nodes):
    """Single events fall on lanes of both nodes, and the elements of a batch on all lanes."""
    nodes.wait_until_shared()
    for number in range(40):
        node = (nodes.a, nodes.b)[number % 2]
        answer = node.post("/api/events?wait=stored", {**event(number), "subject": f"s{number}"})
        assert answer.status == 201 and answer.json["durability"] == "stored", answer
    for round_ in range(4):
        node = (nodes.a, nodes.b)[round_ % 2]
        first = 1000 * (round_ + 1)
        answer = node.post("/api/events/batch?wait=stored", lines(first, 200), headers=NDJSON)
        assert answer.status == 201 and answer.json["accepted"] == 200, answer
        assert [one["status"] for one in answer.json["items"]] == ["accepted"] * 200
        again = node.post("/api/events/batch?wait=stored", lines(first + 150, 100), headers=NDJSON)
        assert again.status == 201 and again.json["duplicates"] == 50, again
        assert [one["status"] for one in again.json["items"]] == ["duplicate"] * 50 + ["accepted"] * 50
    wanted = [*range(40), *(n for round_ in range(4) for n in range(1000 * (round_ + 1), 1000 * (round_ + 1) + 250))]
    assert numbers(nodes.a) == wanted == numbers(nodes.b)


@pytest.mark.parametrize("roles", ["intake", "intake,query"])
def test_who_waits_at_a_node_that_does_not_apply_is_answered(nodes, roles):
    """Its own part of the backlog leaves it too, and what it is told of how far the others are is right."""
    nodes.b.stop()
    nodes.b.settings["ROLES"] = roles
    nodes.b.start()
    for number in range(10):
        answer = nodes.b.post("/api/events?wait=stored", {**event(number), "subject": f"s{number}"})
        assert answer.status == 201 and answer.json["durability"] == "stored", answer
    answer = nodes.b.post("/api/events/batch?wait=stored", lines(100, 200), headers=NDJSON)
    assert answer.status == 201 and answer.json["accepted"] == 200, answer
    answer = nodes.b.post("/api/events/batch?wait=stored", lines(1000, 2000, "x" * 300), headers=NDJSON)
    assert answer.status == 201 and answer.json["accepted"] == 2000, answer
    assert numbers(nodes.a) == [*range(10), *range(100, 300), *range(1000, 3000)]
    until(lambda: nodes.b.get("/api/v1/status").json["queue"]["bytes"] == 0)
    drained(nodes.b)
    assert nodes.holders() == 1


@pytest.mark.seconds(8)
def test_who_waits_while_nobody_applies_is_told_that_it_is_durable(nodes):
    nodes.a.kill()
    nodes.b.stop()
    nodes.b.settings.update(ROLES="intake", PROCESSING_TIMEOUT_SECONDS="1")
    nodes.b.start()
    answer = nodes.b.post("/api/events?wait=stored", event(1))
    assert answer.status == 202 and answer.json["durability"] == "jetstream", answer
    assert nodes.b.get("/api/v1/status").json["queue"]["bytes"] > 0
    nodes.a.start()
    until(lambda: nodes.b.get("/api/v1/status").json["queue"]["bytes"] == 0, 20)
    assert len(events(nodes.a)) == 1


def test_uploads_are_applied_and_given_back_by_any_node(nodes):
    nodes.wait_until_shared()
    for round_ in range(4):
        node, other = [(nodes.a, nodes.b), (nodes.b, nodes.a)][round_ % 2]
        body = lines(5000 * round_, 2000, "x" * 300)
        answer = node.post("/api/events/batch?wait=stored", body, headers=NDJSON)
        assert answer.status == 201 and answer.json["accepted"] == 2000, answer
        raw = other.get(f"/api/v1/uploads/{answer.json['upload_id']}/raw")
        assert raw.status == 200 and raw.body.decode() == body
    assert len(numbers(nodes.a)) == 8000
    for node in (nodes.a, nodes.b):
        until(lambda: metric(node, "event_queue_size") == 0)


def test_an_upload_leaves_the_backlog_though_nobody_heard_that_it_is_over(nodes, nats):
    """The node that took it in stands still while the other applies it, and the connection that would have told it
    goes meanwhile."""
    nodes.b.stop()
    nodes.b.settings["ROLES"] = "intake"
    nodes.b.start()
    lock = postgres_server.Lock(nodes.settings["DATABASE_URL"])
    answer = nodes.b.post("/api/events/batch", lines(0, 2000, "x" * 300), headers=NDJSON)
    assert answer.status == 202 and "upload_id" in answer.json, answer
    nodes.b.process.send_signal(signal.SIGSTOP)
    try:
        nats.kill()
        nats.start()
        lock.rollback()
        until(lambda: nodes.sql("SELECT count(*) FROM uploads WHERE state = 2") == "1")
        drained(nodes.a)
    finally:
        nodes.b.process.send_signal(signal.SIGCONT)
    until(lambda: nodes.b.get("/api/v1/status").json["queue"]["bytes"] == 0, 30)
    drained(nodes.b)
    assert numbers(nodes.a) == list(range(2000))


@pytest.mark.seconds(13)
def test_a_node_that_starts_counts_what_waits(nodes, nats):
    """Frames of its earlier run as well: else each start would let the same again in."""
    for node in (nodes.a, nodes.b):
        node.stop()
        node.settings.update(APPLY_PAUSED="1", JOURNAL_MAX_MB="16")
        node.start()
    first = 0
    while nodes.b.post("/api/events/batch", lines(first, 100, "x" * 1900), headers=NDJSON).status == 202:
        first += 100
    assert first * 2000 > 7_500_000  # half is one org's
    nodes.b.kill()
    nodes.b.start()
    found = nodes.b.get("/api/v1/status").json["queue"]["bytes"]
    until(lambda: metric(nodes.b, "journal_bytes") > 0, 20)
    sums = nats.stream(nodes.stream)["state"]["bytes"] + nats.stream(nodes.stream + "_uploads")["state"]["bytes"]
    assert first * 2000 < found <= sums == metric(nodes.b, "journal_bytes")
    accepted = 0
    while nodes.b.post("/api/events/batch", lines(first, 100, "x" * 1900), headers=NDJSON).status == 202:
        first += 100
        accepted += 100
    assert 0 < accepted and found + accepted * 2000 <= 16 << 20
    for node in (nodes.a, nodes.b):
        node.stop()
        node.settings.pop("APPLY_PAUSED")
        node.start()
    for node in (nodes.a, nodes.b):
        until(lambda: node.get("/api/v1/status").json["queue"]["bytes"] == 0, 30)
        drained(node)
    assert numbers(nodes.a) == list(range(first))


def test_the_backlog_is_let_go_wherever_it_is_applied(nodes):
    nodes.wait_until_shared()
    for number in range(300):
        post((nodes.a, nodes.b)[number % 2], number, subject=f"s{number}")
    for node in (nodes.a, nodes.b):
        drained(node)
        until(lambda: node.get("/api/v1/status").json["queue"]["bytes"] == 0)
    assert numbers(nodes.a) == list(range(300))


@pytest.mark.seconds(11)
def test_a_node_that_dies_is_replaced(nodes):
    nodes.wait_until_shared()
    nodes.b.kill()
    for number in range(200):
        post(nodes.a, number, subject=f"s{number}")
    until(lambda: numbers(nodes.a) == list(range(200)))  # that its leases end in time: tests/unit/apply/test_leases.c
    drained(nodes.a)


def test_nodes_tell_each_other_how_far_lanes_are(nodes):
    """What a node that applies says is heard and believed: here it is said by a test, while nobody applies."""
    nodes.wait_until_shared()
    nodes.b.stop()
    nodes.b.settings["ROLES"] = "intake,query"
    nodes.b.start()
    post(nodes.a, 1)
    drained(nodes.b)
    said = nodes.listen()
    position = int(nodes.b.post("/api/events", event(2)).json["position"], 16)
    until(lambda: any(lanes == (1 << 64) - 1 and upto >= position for lanes, upto in said("passed")))
    assert nodes.a.stop() == 0
    until(lambda: said("free"))
    post(nodes.b, 3)
    end = nodes.b.get("/api/v1/status").json["durable_position"]
    assert nodes.b.get("/api/v1/status").json["applied_position"] < end
    nodes.notify(f"passed 1 {(1 << 64) - 1} {int(end, 16)}")
    until(lambda: nodes.b.get("/api/v1/status").json["applied_position"] == end)


@pytest.mark.seconds(11)
def test_a_lane_that_a_transaction_has_holds_no_other_up(nodes):
    """As of a node that stands still within one: what else it had is taken over at once, and that lane after it."""
    nodes.b.stop()
    until(lambda: nodes.holders() == 1)
    own = nodes.sql("SELECT holder FROM cursors WHERE holder <> 0 LIMIT 1")
    held = f"SELECT count(*) FROM cursors WHERE holder = {own}"
    until(lambda: nodes.sql(held) == "64")
    nodes.b.start()
    nodes.wait_until_shared()
    lane = nodes.sql(f"SELECT max(lane) FROM cursors WHERE holder <> {own}")
    lock = postgres_server.Lock(nodes.settings["DATABASE_URL"])
    lock.rollback()
    lock.run(f"BEGIN; SELECT 'row' FROM cursors WHERE lane = {lane} FOR UPDATE;")
    assert lock.process.stdout.readline() == "row\n"
    nodes.b.kill()
    until(lambda: nodes.sql(held) == "63", 30)
    lock.rollback()
    until(lambda: nodes.sql(held) == "64", 30)
    lock.close()


@pytest.mark.seconds(13)
def test_a_node_that_stands_still_holds_nobody_up(nodes):
    """It is stopped within a transaction, whose locks the other needs."""
    nodes.wait_until_shared()
    lock = postgres_server.Lock(nodes.settings["DATABASE_URL"])
    for number in range(100):
        post(nodes.b, number, subject=f"s{number}")
    waiting = f"SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = '{nodes.name}'"
    until(lambda: int(nodes.sql(waiting)) >= 2)
    nodes.b.process.send_signal(signal.SIGSTOP)
    try:
        lock.rollback()
        until(lambda: numbers(nodes.a) == list(range(100)), 30)
    finally:
        nodes.b.process.send_signal(signal.SIGCONT)
    drained(nodes.b)
    assert numbers(nodes.b) == list(range(100))


@pytest.mark.seconds(30)
def test_nodes_are_killed_in_turn_under_load(nodes, tmp_path):
    stop = threading.Event()
    ids = {}

    def load(name):
        for round_ in range(100):
            if stop.is_set():
                return
            process = start_load(getattr(nodes, name), connections=8, seconds=2, rate=500, ids=tmp_path / name)
            process.communicate(timeout=60)
            ids[name] = round_

    threads = [threading.Thread(target=load, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    try:
        for round_ in range(4):
            time.sleep(3)
            victim = getattr(nodes, "ab"[round_ % 2])
            victim.kill()
            victim.start()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    for name in "ab":
        until(lambda: nodes.sql("SELECT count(*) FROM dead_letters") == "0")
        drained(getattr(nodes, name))
    for name in "ab":
        assert audit(nodes.a, tmp_path / name) > 0


@pytest.mark.seconds(9)
def test_nodes_spool_each_for_itself(weir, database_server):
    """NATS is away for both; one of them is killed and comes back before NATS does. Each subject was written through one
    node, so its order holds, whichever of the two applies it."""
    one = nats_server.Nats()
    try:
        nodes = Nodes(weir, database_server, one)
        for node in (nodes.a, nodes.b):
            assert node.stop() == 0
            node.settings["JOURNAL_SPOOL"] = "1"
            node.start()
        one.kill()
        for node in (nodes.a, nodes.b):
            until(lambda node=node: node.get("/health/ready", key=None).json["status"] == "degraded")
        for number in range(200):
            node = nodes.a if number % 2 == 0 else nodes.b
            answer = node.post("/api/events", event(number, subject=f"s{number % 2}"))
            assert answer.status == 202 and answer.json["durability"] == "fsync", answer
            if number == 100:
                nodes.a.kill()
                nodes.a.start()
        one.start()
        for node in (nodes.a, nodes.b):
            until(lambda node=node: node.get("/health/ready", key=None).json["status"] == "ok")
        until(lambda: len(events(nodes.b)) == 200)
        found = events(nodes.a)
        for parity in range(2):
            numbers_of = [one["payload"]["number"] for one in found if one["subject"] == f"s{parity}"]
            assert numbers_of == list(range(parity, 200, 2))
        for node in (nodes.a, nodes.b):
            drained(node)
            assert metric(node, "spool_frames") == 0
    finally:
        one.close()


def test_a_node_whose_lanes_get_nothing_reads_on(nodes):
    """All is of one subject, and more than a consumer is given ahead: the other node passes over it."""
    for one in (nodes.a, nodes.b):
        one.stop()
        one.settings["NATS_MAX_ACK_PENDING"] = "10"
        one.start()
    nodes.wait_until_shared()
    for number in range(100):
        post(nodes.a, number, subject="s")
    drained(nodes.a)
    assert numbers(nodes.b) == list(range(100))


def test_what_the_stream_loses_comes_to_whichever_node_has_its_lane(nodes, nats):
    """Both nodes accept, both apply; what JetStream has acknowledged goes from it before anybody has read it."""
    for one in (nodes.a, nodes.b):
        one.stop()
        one.settings.update(NATS_MAX_ACK_PENDING="1", NATS_PULL_BATCH_SIZE="1")
        one.start()
    nodes.wait_until_shared()
    lock = postgres_server.Lock(nodes.settings["DATABASE_URL"])
    for number in range(80):
        node = (nodes.a, nodes.b)[number % 2]
        assert node.post("/api/events", {**event(number), "subject": f"s{number}"}).status == 202
    answer = nodes.b.post("/api/events/batch", lines(80, 200), headers=NDJSON)
    assert answer.status == 202, answer
    last = nats.stream(nodes.stream)["state"]["last_seq"]
    assert last == 81
    for number in (*range(20, 50), last):
        assert nats.ask(f"$JS.API.STREAM.MSG.DELETE.{nodes.stream}", {"seq": number})["success"]
    lock.rollback()
    lock.close()
    for one in (nodes.a, nodes.b):
        drained(one)
    assert numbers(nodes.a) == list(range(280))


def test_what_another_node_accepted_is_erased_too(nodes):
    """Accepted by one without waiting, and erased by the other at once."""
    for _ in range(5):
        assert nodes.b.post("/api/events/batch", [{"type": "t", "subject": "ann", "payload": n} for n in range(500)]
                            ).status == 202
        answer = nodes.a.post("/api/v1/erase", {"subject": "ann"})
        assert answer.status == 200 and answer.json["events"] == 500, answer
    assert events(nodes.a) == []
