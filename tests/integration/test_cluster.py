"""Promise: with the journal on three servers of NATS JetStream no acknowledged record is lost or applied twice, whichever
of them is killed or paused under load, and Weir is back by itself each time."""
import json
import signal
import threading
import time

import pytest

from black_box import audit, end_load, event, events, start_load, until
from conftest import nats_server

BACK_SECONDS = 30  # servers that lost their leader elect another within 10 s


@pytest.fixture
def cluster():
    one = nats_server.Cluster()
    yield one
    one.close()


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
    assert audit(server, tmp_path / "ids") > 1000


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
    assert audit(server, tmp_path / "ids") > 0


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
