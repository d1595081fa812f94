"""Promise: nodes that take in, nodes that apply and nodes for questions, behind the balancer of deploy/compose.cluster.yaml,
are one service: they are restarted one after the other and no request fails, one that dies is replaced, and every record
that was acknowledged is there once."""
import http.client
import json
import re
import socket
import subprocess
import threading

import pytest

from black_box import check_problem, drained, event, metric, until
from conftest import ROOT, Answer
from test_deploy import free_ports, replaced, run

pytestmark = pytest.mark.sqlite_alone  # it brings its own PostgreSQL and NATS
ROLES = ("intake", "apply", "query")


class Fleet:
    """Two nodes of each kind and the balancer."""

    def __init__(self, weir, database, nats, folder):
        self.database = database
        ports = dict(zip(((role, n) for role in ROLES for n in (1, 2)), free_ports(6)))
        self.nodes = {}
        for (role, n), port in ports.items():
            node = weir(start=False, **database.store_settings(database.name, 6), NATS_URL=nats.url, ROLES=role,
                        PORT=port, DRAIN_DELAY=2)
            node.key = next((one.key for one in self.nodes.values()), None)
            self.nodes[role, n] = node.start()
        self.key = self.nodes["intake", 1].key
        self.port, = free_ports(1)
        text = (ROOT / "deploy/compose.haproxy.cfg").read_text()
        text = replaced(text, "bind :3000", f"bind 127.0.0.1:{self.port}")
        text = replaced(text, " init-addr libc,none resolvers docker", "")
        text = replaced(text, "maxconn 20000", "maxconn 500")
        for (role, n), port in ports.items():
            if role != "apply":
                text = replaced(text, f"weir-{role}-{n}:3000", f"127.0.0.1:{port}")
        path = folder / "haproxy.cfg"
        path.write_text(text[:text.index("resolvers docker")])
        done = run("haproxy", "-c", "-f", path)
        assert done.returncode == 0 and "WARNING" not in done.stdout + done.stderr, done.stderr
        self.process = subprocess.Popen(["haproxy", "-db", "-f", str(path)], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self.listens)

    def listens(self):
        assert self.process.poll() is None, "haproxy ended"
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", self.port)) == 0

    def sql(self, text):
        return self.database.sql(text, self.database.name)

    def request(self, method, path, body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body=None if body is None else json.dumps(body),
                               headers={"X-API-Key": self.key, "Content-Type": "application/json", **headers})
            got = connection.getresponse()
            return Answer(got.status, {name.lower(): value for name, value in got.getheaders()}, got.read())
        finally:
            connection.close()

    def is_used(self, role, n):
        """Whether the balancer sends it what is for its kind: requests that are larger than checks."""
        large = {"X-Large": "x" * 4000}
        before = metric(self.nodes[role, n], "http_received_bytes_total")
        for _ in range(8):
            if role == "query":
                assert self.request("GET", "/api/v1/limits", **large).status == 200
            else:
                assert self.request("POST", "/api/inbox/ack", {"event_ids": []}, **large).status in (200, 422)
        return metric(self.nodes[role, n], "http_received_bytes_total") - before > 4000


@pytest.fixture
def fleet(weir, database, nats, tmp_path):
    one = Fleet(weir, database, nats, tmp_path)
    yield one
    one.process.kill()
    one.process.wait()


class Load:
    """Clients that post and clients that ask, all the time; whatever is not answered as it should be is kept."""

    def __init__(self, fleet):
        self.fleet = fleet
        self.failed, self.kept = [], []
        self.counts = [0] * 4
        self.ended = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(n, (self.post, self.ask)[n % 2])) for n in range(4)]

    def post(self, n):
        number = f"{n}-{self.counts[n]}"
        answer = self.fleet.request("POST", "/api/events", event(number, subject=f"s{self.counts[n] % 100}"))
        if answer.status == 202:
            self.kept.append(answer.json["id"])
        return answer.status == 202, answer

    def ask(self, n):
        answer = self.fleet.request("GET", "/api/v1/events?limit=1")
        return answer.status == 200, answer

    def run(self, n, request):
        while not self.ended.wait(0.01):  # a hundred times a second: more would only be work for the machine
            try:
                is_good, answer = request(n)
            except (OSError, http.client.HTTPException) as fault:
                is_good, answer = False, fault
            if not is_good:
                self.failed.append(answer)
            self.counts[n] += 1

    def goes_on(self):
        """A few more of each client."""
        before = list(self.counts)
        until(lambda: all(now > then + 3 for now, then in zip(self.counts, before)))

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        for thread in self.threads:
            thread.join()


@pytest.mark.seconds(40)
def test_no_request_fails_while_nodes_are_restarted_and_one_dies(fleet):
    for place in (("intake", 1), ("intake", 2), ("query", 1), ("query", 2)):
        until(lambda: fleet.is_used(*place))
    with Load(fleet) as load:
        for place in (("intake", 1), ("query", 1), ("apply", 1), ("intake", 2), ("query", 2)):
            load.goes_on()
            assert fleet.nodes[place].stop() == 0
            load.goes_on()
            fleet.nodes[place].start()
            until(lambda: fleet.nodes[place].get("/health/ready", key=None).status == 200)
            if place[0] != "apply":
                until(lambda: fleet.is_used(*place))
        fleet.nodes["apply", 2].kill()  # holds some of the lanes, and gives none of them up
        count = len(load.kept)
        until(lambda: len(load.kept) > count + 100)
    assert load.failed == []
    for n in (1, 2):
        drained(fleet.nodes["intake", n])
    assert sorted(fleet.sql("SELECT id FROM events").split()) == sorted(load.kept)
    # A position that a node gave is one that the nodes for questions can wait for.
    answer = fleet.request("POST", "/api/events", event("last"))
    found = fleet.request("GET", f"/api/v1/events?limit=1&wait_for={answer.json['position']}")
    assert found.status == 200 and found.json["events"][0]["id"] == answer.json["id"]


@pytest.mark.seconds(5)
def test_each_kind_stands_in_where_it_can(fleet):
    """Questions are answered as long as any node is there; records need one that takes in."""
    until(lambda: fleet.is_used("intake", 1) and fleet.is_used("query", 1))
    for n in (1, 2):
        fleet.nodes["query", n].kill()
    until(lambda: fleet.request("GET", "/api/v1/events").status == 200)
    assert fleet.request("POST", "/api/events", event(1)).status == 202
    for n in (1, 2):
        fleet.nodes["query", n].start()
    until(lambda: fleet.is_used("query", 1))
    for n in (1, 2):
        fleet.nodes["intake", n].kill()
    refused = until(lambda: (lambda one: one if b"not_here" in one.body else None)(
        fleet.request("POST", "/api/events", event(2))))
    check_problem(refused, 503, "not_here")
    assert re.fullmatch(r"\d+", refused.headers["retry-after"])
    until(lambda: len(fleet.request("GET", "/api/v1/events").json["events"]) == 1)
    assert fleet.request("POST", "/api/keys", {"scopes": ["read"]}).status == 201
