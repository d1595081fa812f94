"""Promise: with the journal on three servers of NATS JetStream, and two nodes of Weir on one PostgreSQL, no acknowledged
record is lost or applied twice, whichever process is killed or paused under load, and all is back by itself each time."""
import json
import signal
import threading
import time

import pytest

from black_box import audit, end_load, event, events, metric, start_load, until
from conftest import nats_server, postgres_server

BACK_SECONDS = 30  # servers that lost their leader elect another within 10 s


@pytest.fixture
def cluster():
    one = nats_server.Cluster()
    yield one
    one.close()


def audit_all(cluster, server, ids):
    """Where each of the three copies lacks what, should a record be lost."""
    try:
        return audit(server, ids)
    except AssertionError:
        print(*cluster.differences("weir"), sep="\n")
        for name in ("journal_resent_frames_total", "journal_unkept_frames_total", "event_queue_size"):
            print(f"{server.url}: {name} {metric(server, name)}")
        raise


def until_back(server):
    """It accepts, and applies what it accepts."""
    def is_back():
        return server.post("/api/events?wait=stored", event(time.monotonic_ns(), "probe")).status == 201
    until(is_back, BACK_SECONDS)


def in_turn(cluster, server, how):
    for one in cluster.servers:
        time.sleep(1)
        if how == "killed":
            one.kill()
        else:
            one.signal(signal.SIGSTOP)
        until_back(server)
        if how == "killed":
            one.start()
        else:
            one.signal(signal.SIGCONT)
        cluster.wait_until_whole("weir", "weir_uploads")


@pytest.mark.long
@pytest.mark.parametrize("how", ["killed", "paused"])
def test_each_server_of_nats_goes_in_turn(weir, cluster, tmp_path, how):
    server = weir(NATS_URL=cluster.url, NATS_REPLICAS=3)
    load = start_load(server, connections=16, seconds=60, rate=500, ids=tmp_path / "ids")
    in_turn(cluster, server, how)
    load.send_signal(signal.SIGINT)
    end_load(load)
    until_back(server)
    assert audit_all(cluster, server, tmp_path / "ids") > 1000


@pytest.mark.long
def test_weir_is_killed_while_a_server_of_nats_is_away(weir, cluster, tmp_path):
    server = weir(NATS_URL=cluster.url, NATS_REPLICAS=3)
    for one in cluster.servers:
        load = start_load(server, connections=16, seconds=5, rate=500, ids=tmp_path / "ids")
        time.sleep(1)
        one.kill()
        time.sleep(1)
        server.kill()
        load.communicate(timeout=60)
        server.start()
        until_back(server)
        one.start()
        cluster.wait_until_whole("weir", "weir_uploads")
    assert audit_all(cluster, server, tmp_path / "ids") > 0


@pytest.mark.long
def test_uploads_while_servers_of_nats_go(weir, cluster):
    """Those that were acknowledged are whole."""
    server = weir(NATS_URL=cluster.url, NATS_REPLICAS=3)
    text = "x" * 500
    accepted = []
    is_over = threading.Event()

    def send():
        number = 0
        while not is_over.is_set():
            body = "".join(json.dumps(event(number * 1000 + n, "upload", payload={"number": number * 1000 + n,
                                                                                 "text": text})) + "\n" for n in range(1000))
            answer = server.post("/api/events/batch", body, headers={"Content-Type": "application/x-ndjson"})
            if answer.status == 202:
                accepted.append(number)
            number += 1

    thread = threading.Thread(target=send)
    thread.start()
    try:
        in_turn(cluster, server, "killed")
    finally:
        is_over.set()
        thread.join()
    assert len(accepted) > 10
    wanted = {number * 1000 + n for number in accepted for n in range(1000)}
    until(lambda: wanted <= set(one["payload"]["number"] for one in events(server, "&type=upload")), 60)


@pytest.fixture
def nodes(weir, cluster):
    database = postgres_server.Postgres()
    name = database.new_database()
    settings = {"DATABASE_URL": database.url(name), "DATABASE_MAX_CONNECTIONS": "6", "DATABASE_MIN_CONNECTIONS": "1",
                "NATS_URL": cluster.url, "NATS_REPLICAS": 3}
    a = weir(**settings)
    b = weir(start=False, **settings)
    b.key = a.key
    b.start()
    yield a, b, lambda text: database.sql(text, name)
    for one in (a, b):
        one.kill()
    database.close()


@pytest.mark.seconds(20)
@pytest.mark.sqlite_alone
def test_who_waits_is_answered_though_the_word_of_the_other_node_was_lost(weir, cluster):
    """The server that node a speaks to stands still while a applies what b accepted, and then dies: what a said to it
    of the results is gone."""
    database = postgres_server.Postgres()
    name = database.new_database()
    settings = {"DATABASE_URL": database.url(name), "DATABASE_MAX_CONNECTIONS": "6", "NATS_REPLICAS": 3}
    of_a, *rest = cluster.servers
    a = weir(NATS_URL=of_a.url, **settings)
    b = weir(start=False, NATS_URL=",".join(one.url for one in rest), PROCESSING_TIMEOUT_SECONDS="3600", **settings)
    b.key = a.key
    b.start()
    holders = "SELECT count(*) FROM (SELECT holder FROM cursors WHERE holder <> 0 GROUP BY holder HAVING count(*) = 32) x"
    until(lambda: database.sql(holders, name) == "2", 20)
    lock = postgres_server.Lock(database.url(name))
    answers = []
    asking = [threading.Thread(target=lambda number=number: answers.append(
        b.post("/api/events?wait=stored", {**event(number), "subject": f"s{number}"}))) for number in range(40)]
    try:
        for one in asking:
            one.start()
        until(lambda: metric(a, "ingest_consumer_ack_pending") + metric(b, "ingest_consumer_ack_pending") == 40)
        of_a.signal(signal.SIGSTOP)
        lock.rollback()
        until(lambda: metric(a, "ingest_queue_latency_seconds_count") + metric(b, "ingest_queue_latency_seconds_count") == 40)
        of_a.kill()
        for one in asking:
            one.join()
    finally:
        lock.close()
        for one in (a, b):
            one.kill()
        database.close()
    assert sorted({one.status for one in answers}) == [201, 202] and len(answers) == 40


@pytest.mark.long
@pytest.mark.sqlite_alone
@pytest.mark.parametrize("how", ["killed", "paused"])
def test_each_process_goes_in_turn(nodes, cluster, tmp_path, how):
    """Five of them, the store's server apart; both nodes take a load meanwhile."""
    a, b, sql = nodes
    is_over = threading.Event()

    def load(server, ids):
        while not is_over.is_set():
            start_load(server, connections=8, seconds=3, rate=200, ids=ids).communicate(timeout=100)

    loads = [threading.Thread(target=load, args=(one, tmp_path / name)) for one, name in ((a, "a"), (b, "b"))]
    for one in loads:
        one.start()
    try:
        in_turn(cluster, b, how)
        for one, other in ((a, b), (b, a)):
            time.sleep(1)
            if how == "killed":
                one.kill()
                until_back(other)
                one.start()
            else:
                one.process.send_signal(signal.SIGSTOP)
                until_back(other)
                one.process.send_signal(signal.SIGCONT)
            until_back(one)
    finally:
        is_over.set()
        for one in loads:
            one.join()
    for one in (a, b):
        until_back(one)
    assert sql("SELECT count(*) FROM dead_letters") == "0"
    assert audit_all(cluster, a, tmp_path / "a") > 1000
    assert audit_all(cluster, b, tmp_path / "b") > 1000
