"""Promise: what was erased is given by nobody any more and does not come back, and nothing else is touched."""
import json
import sqlite3

import pytest

from black_box import until

SECRET = "secret-of-ann"


def send(server, subject, key, n, **more):
    event = {"type": "t", "subject": subject, "payload": {"n": n, "who": SECRET if subject == "ann" else subject},
             "dedup_id": f"{subject}-{n}", **more}
    answer = server.post("/api/events?wait=stored", event, key=key)
    assert answer.status == 201, answer
    return answer.json["id"]


def erase(server, key, **what):
    return server.post("/api/v1/erase", what, key=key)


def subjects(server, key, query=""):
    return [one["subject"] for one in server.get(f"/api/v1/events?limit=1000{query}", key=key).json["events"]]


@pytest.fixture
def key(server, request):
    return server.new_org(request.node.name)


def test_a_subject(server, key):
    ids = {who: [send(server, who, key, n) for n in range(3)] for who in ("ann", "bob")}
    other = server.new_org("erase-other-org")
    send(server, "ann", other, 0)
    answer = erase(server, key, subject="ann")
    assert answer.status == 200 and answer.json == {"success": True, "events": 3, "dead_letters": 0, "raw_uploads": 0}
    assert subjects(server, key) == ["bob"] * 3 and subjects(server, key, "&subject=ann") == []
    assert server.get("/api/inbox", key=key).body.count(SECRET.encode()) == 0
    assert server.get("/api/v1/export/events", key=key).json["record_count"] == 3
    assert server.get(f"/api/v1/events/{ids['ann'][0]}", key=key).status == 404
    assert server.get(f"/api/v1/events/{ids['bob'][0]}", key=key).status == 200
    assert subjects(server, other) == ["ann"]
    assert erase(server, key, subject="ann").json["events"] == 0


@pytest.mark.sqlite_alone
def test_nothing_of_it_stands_in_the_database(weir):
    server = weir()
    for n in range(50):
        send(server, "ann", True, n)
    assert erase(server, True, subject="ann").status == 200
    server.stop()
    assert SECRET.encode() not in (server.data_dir / "weir.db").read_bytes()
    database = sqlite3.connect(server.data_dir / "weir.db")
    assert database.execute("SELECT count(*) FROM event_subjects").fetchone() == (0,)
    database.close()


def test_a_retry_brings_nothing_back(server, key):
    first = send(server, "ann", key, 1)
    assert erase(server, key, user_id="ann").json["events"] == 1
    answer = server.post("/api/events?wait=stored", {"type": "t", "subject": "ann", "payload": SECRET,
                                                     "dedup_id": "ann-1"}, key=key)
    assert answer.status == 200 and answer.json["id"] == first and answer.json["duplicate"]
    assert subjects(server, key) == []
    send(server, "ann", key, 2)  # what is new is new
    assert subjects(server, key) == ["ann"]


def test_an_event_and_an_app(server, key):
    one = send(server, "x", key, 1)
    send(server, "x", key, 2, app="shop")
    send(server, "y", key, 3, app="shop")
    assert erase(server, key, event_id=one).json["events"] == 1
    assert sorted(subjects(server, key)) == ["x", "y"]
    assert erase(server, key, app="shop").json["events"] == 2
    assert subjects(server, key) == []
    assert erase(server, key, event_id=one).json["events"] == 0


def test_of_an_upload_the_raw_body_goes_too(server, key):
    lines = "".join(json.dumps({"type": "t", "subject": "ann" if n == 7 else "bob", "payload": "z" * 500}) + "\n"
                    for n in range(2000))
    sent = server.post("/api/events/batch?wait=stored", lines, key=key,
                       headers={"Content-Type": "application/x-ndjson"}).json
    path = f"/api/v1/uploads/{sent['upload_id']}"
    assert server.get(path + "/raw", key=key).status == 200
    assert erase(server, key, subject="ann").json == {"success": True, "events": 1, "dead_letters": 0, "raw_uploads": 1}
    assert server.get(path + "/raw", key=key).status == 404
    assert server.get(path, key=key).json["raw_available"] is False


def test_raw_bodies_are_deleted(weir):
    server = weir()
    lines = "".join(json.dumps({"type": "t", "subject": "ann", "payload": SECRET * 20}) + "\n" for _ in range(2000))
    sent = server.post("/api/events/batch?wait=stored", lines, headers={"Content-Type": "application/x-ndjson"}).json
    assert server.bodies()[0]
    assert erase(server, True, subject="ann").json["events"] == 2000
    server.stop()
    server.start()  # looks at once
    server.wait_applied(sent["position"])
    until(lambda: not list((server.data_dir / "uploads").iterdir()))


def test_what_is_accepted_and_not_applied_is_covered(server, key):
    """Accepted without waiting, then erased at once: nothing of it is left however far applying was."""
    for round_ in range(10):
        server.post("/api/events/batch", [{"type": "t", "subject": "ann", "payload": n} for n in range(500)], key=key)
        assert erase(server, key, subject="ann").json["events"] == 500
    assert subjects(server, key) == []


def test_order_and_acknowledging_go_on(server, key):
    ids = [send(server, "ann" if n % 2 else "bob", key, n) for n in range(10)]
    assert server.post("/api/inbox/ack", {"event_ids": ids[:4]}, key=key).json["acknowledged"] == 4
    assert erase(server, key, subject="ann").json["events"] == 5
    got = [one["id"] for one in server.get("/api/v1/events?order=asc", key=key).json["events"]]
    assert got == ids[::2]
    assert [one["id"] for one in server.get("/api/inbox?order=asc", key=key).json["events"]] == ids[4::2]


def test_an_erased_id_may_be_acknowledged(server, key):
    """Who was given it before says that it is done; that must neither fail nor bring anything back."""
    ids = [send(server, "ann" if n % 2 else "bob", key, n) for n in range(4)]
    assert erase(server, key, subject="ann").json["events"] == 2
    for _ in range(2):
        answer = server.post("/api/inbox/ack", {"event_ids": [ids[1], ids[2]]}, key=key)
        assert answer.status == 200 and answer.json["acknowledged"] == 2 and answer.json["failed"] == 0
    assert [one["id"] for one in server.get("/api/inbox?order=asc", key=key).json["events"]] == ids[:1]
    assert server.get(f"/api/v1/events/{ids[1]}", key=key).status == 404
    assert subjects(server, key, "&status=acknowledged") == ["bob"]


def test_the_audit_forgets_whom(server, key):
    send(server, "ann", key, 1)
    erase(server, key, subject="ann")
    row = server.get("/api/v1/audit", key=key).json["audit"][0]
    assert row["action"] == "erase" and row["target"] == "subject: 1"


@pytest.mark.parametrize("body", [{}, {"subject": ""}, {"subject": "a", "app": "b"}, {"event_id": "x"}, {"app": 7},
                                  {"everything": True}])
def test_refusals(server, body):
    assert server.post("/api/v1/erase", body).status == 422


def test_only_admins(server):
    writer = server.post("/api/keys", {"scopes": ["read", "write"]}).json["api_key"]
    assert erase(server, writer, subject="ann").status == 403
