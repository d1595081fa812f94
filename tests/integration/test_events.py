"""Promise: an event that was answered with 202 can be read back as it came, once, and answers say exactly what
was taken."""
import gzip
import json
import subprocess

import pytest

from black_box import check_problem
from conftest import DURABILITY, basic

NDJSON = {"Content-Type": "application/x-ndjson"}


def one(server, id):
    answer = server.get(f"/api/v1/events/{id}")
    assert answer.status == 200, answer
    return answer.json


def test_round_trip(server):
    sent = {"type": "user.login", "payload": {"a": [1, 2.50, None], "ü": "\u20ac"}, "dedup_id": "round-trip",
            "subject": "user-1", "source": "web", "app": "shop", "occurred_at": "2024-05-06T07:08:09.123+02:00"}
    answer = server.post("/api/events", sent)
    assert answer.status == 202
    assert set(answer.json) == {"id", "status", "position", "durability"}
    assert answer.json["status"] == "accepted" and answer.json["durability"] == DURABILITY
    assert answer.headers["cache-control"] == "no-store"
    got = server.get(f"/api/v1/events/{answer.json['id']}?wait_for={answer.json['position']}").json
    for name in ("type", "payload", "dedup_id", "subject", "source", "app"):
        assert got[name] == sent[name]
    assert got["event_type"] == "user.login"
    assert got["occurred_at"] == "2024-05-06T05:08:09.123Z"
    assert got["delivery_status"] == "pending" and got["attempts"] == 0


def test_the_payload_is_kept_to_the_byte(server):
    raw = b'{"type":"raw", "payload": {"big": 12345678901234567890123, "e": 1E+2, "s": "\\u00e9\\/"} }'
    answer = server.request("POST", "/api/events?wait=stored", raw, {"Content-Type": "application/json"})
    assert answer.status == 201
    body = server.get(f"/api/v1/events/{answer.json['id']}").body
    assert b'"payload":{"big": 12345678901234567890123, "e": 1E+2, "s": "\\u00e9\\/"}' in body


def test_wait_stored(server):
    first = server.post("/api/events?wait=stored", {"type": "a", "payload": 1, "dedup_id": "stored-1"})
    assert first.status == 201 and first.json["status"] == "stored" and first.json["durability"] == "stored"
    assert one(server, first.json["id"])["payload"] == 1
    again = server.post("/api/events?wait=stored", {"type": "a", "payload": 1, "dedup_id": "stored-1"})
    assert again.status == 200 and again.json["duplicate"] is True and again.json["id"] == first.json["id"]
    assert "dedup_conflict" not in again.json
    other = server.post("/api/events?wait=stored", {"type": "a", "payload": 2, "dedup_id": "stored-1"})
    assert other.status == 200 and other.json["dedup_conflict"] is True
    assert one(server, first.json["id"])["payload"] == 1


def test_wait_stored_is_bounded(weir):
    """The record is durable all the same, and the answer says no more than that."""
    server = weir(APPLY_PAUSED=1, PROCESSING_TIMEOUT_SECONDS=1)
    for body in ({"type": "a", "payload": 1}, [{"type": "a", "payload": 2}]):
        answer = server.post("/api/events?wait=stored", body)
        assert answer.status == 202 and answer.json["durability"] == DURABILITY, answer
    assert server.get("/api/inbox").json["events"] == []
    server.kill()
    del server.settings["APPLY_PAUSED"]
    server.start()
    server.wait_applied(answer.json["position"])
    assert sorted(e["payload"] for e in server.get("/api/inbox").json["events"]) == [1, 2]


def test_duplicates_have_one_id(server):
    answers = [server.post("/api/events", {"type": "a", "payload": n, "dedup_id": "twice"}) for n in range(3)]
    assert [answer.status for answer in answers] == [202] * 3
    assert len({answer.json["id"] for answer in answers}) == 1
    server.wait_applied(answers[-1].json["position"])
    assert [e["payload"] for e in server.get("/api/v1/events?limit=1000").json["events"]
            if e["dedup_id"] == "twice"] == [0]


def test_without_dedup_id_every_event_is_new(server):
    ids = {server.post("/api/events", {"type": "a", "payload": 1}).json["id"] for _ in range(3)}
    assert len(ids) == 3


@pytest.mark.parametrize("header", ["idem-1", '"idem-1"'])
def test_idempotency_key_stands_in(server, header):
    answer = server.post("/api/events?wait=stored", {"type": "a", "payload": 1}, headers={"Idempotency-Key": header})
    assert answer.status in (200, 201)
    expected = server.post("/api/events", {"type": "a", "payload": 1, "dedup_id": "idem-1"})
    assert answer.json["id"] == expected.json["id"]


@pytest.mark.parametrize("header", ['"', '"a', "a b", "x" * 256, '"a"b"'])
def test_malformed_idempotency_key(server, header):
    answer = server.post("/api/events", {"type": "a", "payload": 1}, headers={"Idempotency-Key": header})
    assert answer.status == 400 and answer.json["code"] == "bad_query"


@pytest.mark.parametrize("query", ["wait=later", "atomic=perhaps"])
def test_malformed_options(server, query):
    answer = server.post(f"/api/events?{query}", {"type": "a", "payload": 1})
    assert answer.status == 400 and answer.json["code"] == "bad_query"


@pytest.mark.parametrize("event, pointer", [
    ({"payload": 1}, "/type"), ({"type": "a"}, "/payload"), ({"type": "", "payload": 1}, "/type"),
    ({"type": "a b", "payload": 1}, "/type"), ({"type": "a" * 256, "payload": 1}, "/type"),
    ({"type": 5, "payload": 1}, "/type"), ({"type": "a", "payload": 1, "dedup_id": ""}, "/dedup_id"),
    ({"type": "a", "payload": 1, "dedup_id": "x" * 256}, "/dedup_id"),
    ({"type": "a", "payload": 1, "occurred_at": "yesterday"}, "/occurred_at"),
])
def test_well_formed_and_wrong(server, event, pointer):
    answer = server.post("/api/events", event)
    assert answer.status == 422 and answer.json["code"] == "invalid", answer
    assert answer.json["errors"][0]["pointer"] == pointer


def test_bounds_are_taken(server):
    answer = server.post("/api/events?wait=stored",
                         {"type": "a" * 255, "payload": None, "dedup_id": "x" * 255})
    assert answer.status == 201
    assert one(server, answer.json["id"])["payload"] is None


def test_scopes(server):
    def key(*scopes):
        return server.post("/api/keys", {"scopes": list(scopes)}).json["api_key"]

    reader, writer = key("read"), key("write")
    assert server.post("/api/events", {"type": "a", "payload": 1}, key=reader).status == 403
    assert server.post("/api/events", {"type": "a", "payload": 1}, key=writer).status == 202
    assert server.get("/api/inbox", key=writer).status == 403
    assert server.get("/api/inbox", key=reader).status == 200
    assert server.get("/api/keys", key=reader).status == 403


@pytest.mark.parametrize("headers", [
    lambda key: {"X-API-Key": key}, lambda key: {"Authorization": f"Bearer {key}"},
    lambda key: {"Authorization": f"bearer {key}"}, lambda key: {"Authorization": basic(key)},
    lambda key: {"Authorization": basic(key, "x")},
])
def test_ways_to_send_a_key(server, headers):
    assert server.get("/api/inbox", key=None, headers=headers(server.key)).status == 200


@pytest.mark.parametrize("headers", [
    {}, {"X-API-Key": ""}, {"X-API-Key": "weir_x_y"}, {"Authorization": "Bearer "}, {"Authorization": "Digest x"},
    {"Authorization": "Basic !!!"}, {"Authorization": "Basic " + "QUFB" * 500},
])
def test_bad_keys(server, headers):
    answer = server.get("/api/inbox", key=None, headers=headers)
    assert answer.status == 401 and "www-authenticate" in answer.headers
    assert answer.json["code"] == "unauthorized" and answer.json["request_id"]


@pytest.mark.parametrize("query", ["api_key={}", "key={}", "access_token={}", "x={}", "X-API-KEY={}"])
def test_a_key_in_the_query_is_refused(server, query):
    path = "/api/inbox?" + query.format(server.key)
    assert server.get(path, key=None).status == 401
    assert server.get(path).status == 401


def test_another_orgs_event_does_not_exist(server):
    other = server.new_org("events-other")
    mine = server.post("/api/events?wait=stored", {"type": "secret", "payload": 1, "dedup_id": "mine"}).json["id"]
    assert server.get(f"/api/v1/events/{mine}", key=other).status == 404
    theirs = server.post("/api/events?wait=stored", {"type": "a", "payload": 1, "dedup_id": "mine"}, key=other)
    assert theirs.status == 201 and theirs.json["id"] != mine
    assert [e["id"] for e in server.get("/api/v1/events", key=other).json["events"]] == [theirs.json["id"]]


@pytest.mark.parametrize("id", ["x", "0", "00000000-0000-0000-0000-000000000000", "..%2f..", "%00"])
def test_no_such_event(server, id):
    answer = server.get(f"/api/v1/events/{id}")
    assert answer.status in (400, 404), answer


def test_content_types(server):
    def send(kind, body=b'{"type":"a","payload":1}'):
        return server.request("POST", "/api/events", body, {"Content-Type": kind} if kind else {}).status

    for kind in ("application/json", "application/json; charset=utf-8", "APPLICATION/JSON", "text/plain"):
        assert send(kind) == 202, kind
    for kind in ("application/xml", "image/png", "multipart/form-data; boundary=x"):
        assert send(kind) == 415, kind
    assert send("text/plain", b"hello") == 400


def test_compressed_bodies(server):
    body = json.dumps({"type": "zip", "payload": "x" * 1000}).encode()
    zstd = subprocess.run(["zstd", "-c"], input=body, stdout=subprocess.PIPE, check=True).stdout
    for coding, bytes in (("gzip", gzip.compress(body)), ("zstd", zstd)):
        answer = server.request("POST", "/api/events?wait=stored", bytes,
                                {"Content-Type": "application/json", "Content-Encoding": coding})
        assert answer.status == 201, coding
        assert one(server, answer.json["id"])["payload"] == "x" * 1000
    answer = server.request("POST", "/api/events", body,
                            {"Content-Type": "application/json", "Content-Encoding": "x"})
    assert answer.status == 415


def test_traceparent_is_kept(server):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    answer = server.post("/api/events?wait=stored", {"type": "a", "payload": 1}, headers={"traceparent": trace})
    assert one(server, answer.json["id"])["attributes"]["traceparent"] == trace


def test_request_id_is_echoed_or_made(server):
    answer = server.post("/api/events", {"type": "a", "payload": 1}, headers={"X-Request-Id": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    assert server.get("/health").headers["x-request-id"] != server.get("/health").headers["x-request-id"]
    assert server.get("/api/v1/events/x", headers={"X-Request-Id": "mine-2"}).json["request_id"] == "mine-2"


# --- CloudEvents ------------------------------------------------------------------------------------------------

def test_cloudevent_structured(server):
    sent = {"specversion": "1.0", "id": "A-1", "source": "/s", "type": "com.example", "subject": "sub",
            "data": {"x": 1}, "ext": "e"}
    answer = server.request("POST", "/api/events?wait=stored", json.dumps(sent).encode(),
                            {"Content-Type": "application/cloudevents+json; charset=utf-8"})
    assert answer.status == 201
    got = one(server, answer.json["id"])
    assert (got["type"], got["source"], got["dedup_id"], got["subject"]) == ("com.example", "/s", "A-1", "sub")
    assert got["payload"] == {"x": 1} and got["attributes"]["ext"] == "e"


def test_cloudevent_binary_has_the_id_of_the_structured_one(server):
    answer = server.request("POST", "/api/events?wait=stored", b'{"x":1}', {
        "Content-Type": "application/json", "ce-specversion": "1.0", "ce-id": "A-2", "ce-source": "/s",
        "CE-Type": "com.example", "ce-ext": "e%20f"})
    assert answer.status == 201, answer
    got = one(server, answer.json["id"])
    assert got["payload"] == {"x": 1} and got["attributes"]["ext"] == "e f" and got["type"] == "com.example"
    same = server.request("POST", "/api/events", json.dumps(
        {"specversion": "1.0", "id": "A-2", "source": "/s", "type": "com.example", "data": {"x": 1}}).encode(),
        {"Content-Type": "application/cloudevents+json"})
    assert same.json["id"] == answer.json["id"]


def test_cloudevent_batch(server):
    sent = [{"specversion": "1.0", "id": f"B-{n}", "source": "/s", "type": "t", "data": n} for n in range(3)]
    answer = server.request("POST", "/api/events?wait=stored", json.dumps(sent).encode(),
                            {"Content-Type": "application/cloudevents-batch+json"})
    assert answer.status == 201 and answer.json["accepted"] == 3


def test_cloudevent_without_source(server):
    answer = server.request("POST", "/api/events", b'{"specversion":"1.0","id":"1","type":"t"}',
                            {"Content-Type": "application/cloudevents+json"})
    assert answer.status == 422
