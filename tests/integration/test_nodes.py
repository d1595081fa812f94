"""Promise: two nodes on one PostgreSQL, each with its own journal, are one service: what is posted on either is
applied once and seen on both, and neither touches what is the other's."""
import concurrent.futures
import http.client
import pathlib
import threading

import pytest

from black_box import drained, event, events, post, until
from test_stream import Tail
from test_telemetry import Plant

pytestmark = pytest.mark.sqlite_alone  # it brings its own PostgreSQL


class Nodes:
    """Two servers on one database."""

    def __init__(self, weir, database_server, **settings):
        self.server = database_server
        self.name = database_server.new_database()
        self.weir = weir
        self.settings = database_server.store_settings(self.name, 6, **settings)
        self.a = weir(**self.settings)
        self.b = self.another()

    def another(self, **settings):
        one = self.weir(start=False, **{**self.settings, **settings})
        one.key = self.a.key
        return one.start()

    def sql(self, text):
        return self.server.sql(text, self.name)


@pytest.fixture
def nodes(weir, database_server):
    return Nodes(weir, database_server)


def test_nothing_is_lost_or_applied_twice(nodes):
    """Both are killed in turn while both take events; what was acknowledged is there once."""
    kept = {}
    go_on = threading.Event()
    go_on.set()

    def load(name, number):
        is_open = False  # sent, and nobody knows whether it was taken: sent again
        while is_open or go_on.is_set():
            server = getattr(nodes, name)
            is_open = True
            try:
                answer = server.post("/api/events", event(f"{name}{number}"))
            except (OSError, ValueError, http.client.HTTPException):
                continue
            if answer.status == 202:
                kept[answer.json["id"]] = f"{name}{number}"
                number += 1
                is_open = False

    threads = [threading.Thread(target=load, args=(name, start)) for name in "ab" for start in (0, 100000)]
    for thread in threads:
        thread.start()
    try:
        for round_ in range(6):
            count = len(kept)
            until(lambda: len(kept) > count + 100)
            victim = nodes.a if round_ % 2 == 0 else nodes.b
            victim.kill()
            victim.start()
    finally:
        go_on.clear()
        for thread in threads:
            thread.join()
    drained(nodes.a)
    drained(nodes.b)
    found = [one["id"] for one in events(nodes.a)]
    assert sorted(found) == sorted(kept)
    assert [one["id"] for one in events(nodes.b)] == found
    assert nodes.sql("SELECT count(*) FROM dead_letters") == "0"


def test_positions_of_journals_are_apart(nodes):
    """Letters, uploads and answers are named by positions: no two journals give the same."""
    answers = [node.post("/api/events", event(n)).json["position"] for n, node in enumerate((nodes.a, nodes.b) * 3)]
    assert len(set(answers)) == 6
    third = nodes.another()
    more = third.post("/api/events", event(9)).json["position"]
    bases = [int(line) for line in nodes.sql("SELECT base FROM journals ORDER BY base").split()]
    assert len(set(bases)) == 3 and all(b % 2**44 == 0 for b in bases)
    assert {int(p, 16) >> 44 for p in answers} | {int(more, 16) >> 44} == {b >> 44 for b in bases}
    for node in (nodes.a, third):  # a start goes on where its own journal stood
        node.stop()
        node.start()
    again = nodes.a.post("/api/events", event(10)).json["position"]
    assert int(again, 16) == int(answers[4], 16) + 1


@pytest.mark.seconds(8)
def test_an_upload_is_its_node_s(nodes):
    """A node that starts leaves the other's upload alone, whose file it has not."""
    body = "\n".join('{"type":"u","payload":{"n":%d}}' % n for n in range(200000)).encode()
    answer = nodes.b.post("/api/events/batch", body, headers={"Content-Type": "application/x-ndjson"})
    assert answer.status == 202, answer
    upload = answer.json["upload_id"]
    until(lambda: nodes.sql("SELECT slices_done FROM uploads WHERE state = 1") not in ("", "0"))
    nodes.b.kill()
    nodes.a.stop()
    nodes.a.start()
    post(nodes.a, 1)
    drained(nodes.a)
    assert nodes.a.get(f"/api/v1/uploads/{upload}").json["state"] == "applying"
    nodes.b.start()
    until(lambda: nodes.a.get(f"/api/v1/uploads/{upload}").json["state"] == "processed")
    assert nodes.sql("SELECT count(*) FROM events") == "200001"
    # Its body is deleted by who has it.
    assert nodes.a.post("/api/v1/erase", {"subject": "nobody"}).status == 200
    nodes.sql("UPDATE uploads SET raw_deleted = 2")
    nodes.a.stop()
    nodes.a.start()
    post(nodes.a, 2)
    drained(nodes.a)
    assert nodes.sql("SELECT raw_deleted FROM uploads") == "2"
    nodes.b.stop()
    nodes.b.start()
    until(lambda: nodes.sql("SELECT raw_deleted FROM uploads") == "1")
    assert not list(pathlib.Path(nodes.b.data_dir, "uploads").glob("*"))


# --- what one changes, the other knows ------------------------------------------------------------------------

CUT_LISTENERS = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()
    AND application_name = 'weir listen'"""


def second_key(nodes):
    """A key that both nodes have let in and hold in memory."""
    key = nodes.a.command("key", "create").stdout.strip().split("\n")[-1]
    for node in (nodes.a, nodes.b, nodes.b):
        assert node.get("/api/inbox", key=key).status == 200
    return key


def refused(node, key):
    return lambda: node.get("/api/inbox", key=key).status == 401


@pytest.mark.parametrize("how", ["revoke", "rotate"])
def test_a_key_that_dies_on_one_is_dead_on_the_other(nodes, how):
    key = second_key(nodes)
    nodes.a.command("key", how, key.split("_")[1])
    assert nodes.a.get("/api/inbox", key=key).status == 401
    until(refused(nodes.b, key))
    assert nodes.b.get("/api/inbox").status == 200


def test_a_key_that_dies_while_nobody_hears_it(nodes):
    """The sessions that listen are cut, and the message of the change is never sent."""
    key = second_key(nodes)
    nodes.sql(f"""BEGIN; ALTER TABLE keys DISABLE TRIGGER keys_changed;
        UPDATE keys SET revoked_ms = 1 WHERE id = '{key.split("_")[1]}';
        UPDATE changes SET version = version + 1; ALTER TABLE keys ENABLE TRIGGER keys_changed; COMMIT;
        {CUT_LISTENERS}""")
    until(refused(nodes.a, key))
    until(refused(nodes.b, key))
    assert nodes.b.get("/api/inbox").status == 200


def test_a_key_made_on_one_is_good_on_the_other(nodes):
    """Even when the other was asked for it, and refused it, a moment before it was there."""
    key = second_key(nodes)
    name = key.split("_")[1]
    nodes.sql(f"UPDATE keys SET revoked_ms = 1 WHERE id = '{name}'")
    until(refused(nodes.b, key))
    nodes.sql(f"UPDATE keys SET revoked_ms = 0 WHERE id = '{name}'")
    nodes.a.command("key", "create")  # refusals are remembered for a minute, until there is a new key
    until(lambda: not refused(nodes.b, key)())


@pytest.mark.seconds(16)
def test_limits_of_an_org(nodes):
    def quota(node):
        return node.get("/api/inbox").headers.get("ratelimit-policy", "")

    assert '"org";q=' not in quota(nodes.b)
    nodes.sql("UPDATE orgs SET tier = 'free'")
    until(lambda: '"org";q=100;' in quota(nodes.b))
    until(lambda: '"org";q=100;' in quota(nodes.a))


def at_once(nodes, count, ask):
    """`ask(node)` on both nodes in turn, all at the same moment; the answers."""
    barrier = threading.Barrier(count)

    def one(number):
        barrier.wait()
        return ask((nodes.a, nodes.b)[number % 2])

    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def test_the_registry_is_changed_by_one_at_a_time(nodes):
    """Each of those who publish gets a version of its own, and of those who import the same file one makes the rows
    and the others find them."""
    for number in range(5):
        project = nodes.a.post("/api/v1/projects", {"name": f"project {number}"}).json["id"]
        published = at_once(nodes, 8, lambda node, to=f"/api/v1/projects/{project}/versions/publish": node.post(to, b""))
        assert sorted(one.status == 201 and one.json["version"] for one in published) == list(range(1, 9)), published
        file = "project_name,site_name,device_name\n" + "".join(
            f"imported {number},site {line % 5},device {line}\n" for line in range(300))
        imported = at_once(nodes, 6, lambda node, csv=file: node.post("/api/v1/registry/import", csv,
                                                                      headers={"Content-Type": "text/csv"}))
        assert [one.status for one in imported] == [200] * 6, imported
        assert sorted(one.json["created"]["devices"] for one in imported) == [0] * 5 + [300], imported


def test_what_is_posted_on_one_is_seen_on_the_other(nodes):
    tail = Tail(nodes.b)
    for number in range(20):
        answer = nodes.a.post("/api/events", event(number)).json
        got = nodes.b.get(f"/api/v1/events?limit=1&wait_for={answer['position']}")
        assert got.status == 200 and got.json["events"][0]["id"] == answer["id"]
        assert tail.next()["id"] == answer["id"]
    nodes.sql(CUT_LISTENERS)
    answer = nodes.a.post("/api/events", event(99)).json
    assert tail.next()["id"] == answer["id"]
    assert nodes.b.get(f"/api/v1/events?limit=1&wait_for={answer['position']}").status == 200


@pytest.mark.seconds(11)
def test_what_is_not_applied_is_waited_for(nodes):
    """The failing twin: a position of the other that nothing has applied."""
    nodes.a.stop()
    nodes.a.settings["APPLY_PAUSED"] = "1"
    nodes.a.start()
    position = nodes.a.post("/api/events", event(1)).json["position"]
    post(nodes.b, 2)
    drained(nodes.b)
    assert nodes.b.get(f"/api/v1/events?wait_for={position}").status == 504


def test_what_another_node_accepted_is_erased_too(nodes):
    """Accepted by one without waiting, and erased by the other at once."""
    for _ in range(5):
        batch = [{"type": "t", "subject": "ann", "payload": n} for n in range(500)]
        assert nodes.b.post("/api/events/batch", batch).status == 202
        answer = nodes.a.post("/api/v1/erase", {"subject": "ann"})
        assert answer.status == 200 and answer.json["events"] == 500, answer
    assert events(nodes.a) == []


def test_erase_under_the_load_of_another_node(nodes):
    """Which always has something that is not applied yet: erase waits for what was there, not for all that comes."""
    go_on = threading.Event()
    go_on.set()

    def load():
        number = 0
        while go_on.is_set():
            nodes.b.post("/api/events/batch?wait=stored", [event(f"{number}-{n}", subject="bob") for n in range(500)])
            number += 1

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(5):
            post(nodes.b, f"ann-{number}", subject="ann")
            answer = nodes.a.post("/api/v1/erase", {"subject": "ann"})
            assert answer.status == 200 and answer.json["events"] == 1, answer
    finally:
        go_on.clear()
        for thread in threads:
            thread.join()


@pytest.mark.seconds(12)
def test_erase_does_not_pass_over_a_node_that_is_away(nodes):
    """The failing twin: what a killed node has accepted would come back with it."""
    nodes.b.stop()
    nodes.b.settings["APPLY_PAUSED"] = "1"
    nodes.b.start()
    post(nodes.b, 1, subject="ann")
    nodes.b.kill()
    post(nodes.a, 2, subject="ann")
    answer = nodes.a.post("/api/v1/erase", {"subject": "ann"})
    assert answer.status == 504 and "another node" in answer.json["detail"].lower(), answer
    nodes.b.settings["APPLY_PAUSED"] = "0"
    nodes.b.start()
    answer = nodes.a.post("/api/v1/erase", {"subject": "ann"})
    assert answer.status == 200 and answer.json["events"] == 2, answer
    assert nodes.b.stop() == 0
    post(nodes.a, 3, subject="ann")
    answer = nodes.a.post("/api/v1/erase", {"subject": "ann"})
    assert answer.status == 200 and answer.json["events"] == 1, "one that was stopped has left nothing"


# --- roles ----------------------------------------------------------------------------------------------------


QUESTIONS = ["/api/inbox", "/api/v1/events", "/api/v1/events/{id}", "/api/v1/events?wait_for={position}&limit=1",
             "/api/v1/export/events?format=ndjson", "/api/v1/readings?latest=true", "/api/v1/export/readings", "/api/keys",
             "/api/v1/uploads", "/api/v1/dead-letters", "/api/v1/settings", "/api/v1/devices", "/api/v1/projects",
             "/api/v1/devices/health", "/api/v1/limits", "/api/v1/audit"]


def answered_alike(nodes, stored):
    """Each question by each node, and a live tail."""
    for question in QUESTIONS:
        path = question.format(**stored)
        answers = [node.get(path) for node in nodes]
        assert [one.status for one in answers] == [200] * len(nodes), (path, answers)
        if "limits" not in path and "health" not in path:  # which tell of the moment
            assert len({one.body for one in answers}) == 1, (path, answers)
    for node in nodes:
        assert Tail(node).status == 200


def test_roles(nodes):
    """One node takes in and applies, one is there for questions; any node answers any question, and records that are
    sent to the wrong one go to the other."""
    nodes.a.stop()
    nodes.a.settings["ROLES"] = "intake,apply"
    nodes.a.start()
    nodes.b.stop()
    nodes.b.settings.update(ROLES=" query ", DISK_RESERVE_MB="1000000")  # its disk takes nothing more, which is no matter
    nodes.b.start()
    assert nodes.b.get("/health/ready").status == 200
    assert nodes.a.get("/health/ready").json["roles"] == ["intake", "apply"]
    assert nodes.b.get("/health/ready").json["roles"] == ["query"]
    assert nodes.a.get("/health/intake", key=None).status == 200
    assert nodes.b.get("/health/intake", key=None).status == 503
    answer = nodes.a.post("/api/events?wait=stored", event(1))
    assert answer.status == 201
    found = nodes.b.get(f"/api/v1/events?wait_for={answer.json['position']}").json["events"]
    assert [one["id"] for one in found] == [answer.json["id"]]
    for wrong in (nodes.b.post("/api/events", event(2)), nodes.b.post("/api/events/batch", [event(3)]),
                  nodes.b.post("/v1/ingest", {"device_id": "x", "metrics": []})):
        assert wrong.status == 503 and wrong.json["code"] == "not_here" and wrong.headers["retry-after"]
    answered_alike((nodes.a, nodes.b), answer.json)
    for node in (nodes.a, nodes.b):
        assert node.get("/health", key=None).status == 200 and node.get("/metrics", key=None).status == 200
    assert nodes.b.post("/api/inbox/ack", {"event_ids": [answer.json["id"]]}).status == 200


def test_a_node_that_does_not_apply_leaves_nothing_behind(nodes):
    nodes.b.stop()
    nodes.b.settings["APPLY_PAUSED"] = "1"
    nodes.b.start()
    post(nodes.b, 1)
    nodes.b.stop()
    nodes.b.settings["ROLES"] = "query"
    nodes.b.start(wait=False)
    assert nodes.b.process.wait(30) == 1
    nodes.b.stop()
    assert "not applied" in "".join(nodes.b.log) and "ROLES=query" in "".join(nodes.b.log)
    del nodes.b.settings["ROLES"], nodes.b.settings["APPLY_PAUSED"]
    nodes.b.start()
    drained(nodes.b)
    assert len(events(nodes.a)) == 1


@pytest.mark.parametrize("roles, words", [("", "must be some of"), ("intake,aply", "must be some of"),
                                          ("intake,query", "add apply"), ("intake", "add apply")])
def test_roles_that_are_wrong(nodes, roles, words):
    one = nodes.weir(start=False, **{**nodes.settings, "ROLES": roles})
    done = one.command("config", check=False)
    assert done.returncode != 0 and "ROLES" in done.stderr and words in done.stderr, done


def test_roles_need_a_store_that_nodes_share(weir):
    done = weir(start=False, ROLES="query").command("config", check=False)
    assert done.returncode != 0 and "PostgreSQL" in done.stderr, done


# --- what is done once ----------------------------------------------------------------------------------------


@pytest.mark.seconds(15)
def test_periodic_work_moves_when_its_node_dies(nodes):
    """Each node is killed once, so the holder of the lease is; the other finds the device that falls silent."""
    def silent(node):
        return len(node.get("/api/v1/events?type=device.silent").json["events"])

    plant = Plant(nodes.a, "plant")
    assert nodes.a.request("PATCH", f"/api/v1/devices/{plant.device['id']}", {"interval_s": 1}).status == 200
    until(lambda: nodes.sql("SELECT holder FROM leases WHERE name = 'telemetry'"))
    for count, (victim, plant.server) in enumerate(((nodes.a, nodes.b), (nodes.b, nodes.a))):
        victim.kill()
        assert plant.send(plant.message(1)).status in (200, 201)
        until(lambda: silent(plant.server) == count + 1)
        victim.start()
        assert silent(victim) == count + 1


def test_devices_follow_a_change_that_another_node_made_and_died(nodes):
    """A crash between the change of an org's settings and what follows from it leaves this: the change, and a mark."""
    plant = Plant(nodes.a, "plant")
    assert plant.send(plant.message(1)).status in (200, 201)
    before = int(nodes.sql("SELECT due_ms - last_received_ms FROM device_states"))
    assert before != 5 * 3_600_000
    nodes.sql("UPDATE orgs SET silence_hours = 5, due_after = 0")
    until(lambda: nodes.sql("SELECT due_ms - last_received_ms FROM device_states") == str(5 * 3_600_000))
    assert nodes.sql("SELECT count(*) FROM orgs WHERE due_after IS NOT NULL") == "0"
    answer = nodes.b.request("PUT", "/api/v1/settings", {"silence_hours": 7})  # as it goes without a crash
    assert answer.status == 200, answer
    assert nodes.sql("SELECT due_ms - last_received_ms FROM device_states") == str(7 * 3_600_000)
    until(lambda: nodes.sql("SELECT count(*) FROM orgs WHERE due_after IS NOT NULL") == "0")
