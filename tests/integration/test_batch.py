"""Promise: a batch of any size is answered element by element, and nothing is taken that the answer does not say."""
import json

import pytest

NDJSON = {"Content-Type": "application/x-ndjson"}


def events(count, name, size=0):
    return [{"type": "batch", "dedup_id": f"{name}-{n}", "payload": {"n": n, "pad": "x" * size}}
            for n in range(count)]


def lines(events):
    return "".join(json.dumps(event) + "\n" for event in events).encode()


def stored(server, name):
    """dedup_ids of this batch that are in the store, in order."""
    found, cursor = [], ""
    while True:
        page = server.get(f"/api/v1/events?limit=1000&order=asc&type=batch{cursor}").json
        found += [e["dedup_id"] for e in page["events"] if (e["dedup_id"] or "").startswith(name + "-")]
        if page["next_cursor"] is None:
            return found
        cursor = "&cursor=" + page["next_cursor"]


def test_array_and_lines(server):
    for name, body, headers in (("arr", events(5, "arr"), {}), ("nd", lines(events(5, "nd")), NDJSON)):
        answer = server.post("/api/events/batch", body, headers=headers)
        assert answer.status == 202, answer
        got = answer.json
        assert (got["accepted"], got["duplicates"], got["rejected"]) == (5, 0, 0)
        assert [item["index"] for item in got["items"]] == list(range(5))
        assert {item["status"] for item in got["items"]} == {"accepted"}
        server.wait_applied(got["position"])
        assert stored(server, name) == [f"{name}-{n}" for n in range(5)]


def test_ids_in_the_answer_are_those_of_the_events(server):
    answer = server.post("/api/v1/events/batch?wait=stored", events(3, "ids")).json
    for item in answer["items"]:
        assert server.get(f"/api/v1/events/{item['id']}").json["payload"]["n"] == item["index"]


def test_rejected_ones_are_named_and_the_rest_is_taken(server):
    sent = events(4, "mixed")
    sent[1]["type"] = "not good"
    del sent[3]["payload"]
    answer = server.post("/api/events/batch?wait=stored", sent)
    assert answer.status == 201
    got = answer.json
    assert (got["accepted"], got["rejected"]) == (2, 2)
    assert [item["status"] for item in got["items"]] == ["accepted", "rejected", "accepted", "rejected"]
    assert got["items"][1]["pointer"] == "/type" and got["items"][1]["code"]
    assert "id" not in got["items"][1]
    assert stored(server, "mixed") == ["mixed-0", "mixed-2"]


def test_atomic(server):
    sent = events(3, "atomic")
    sent[2]["type"] = 7
    answer = server.post("/api/events/batch?atomic=true&wait=stored", sent)
    assert answer.status == 422 and answer.json["code"] == "invalid"
    assert answer.json["errors"][0]["pointer"] == "/2/type"
    assert stored(server, "atomic") == []
    del sent[2]
    assert server.post("/api/events/batch?atomic=true&wait=stored", sent).status == 201
    assert stored(server, "atomic") == ["atomic-0", "atomic-1"]


def test_all_rejected(server):
    answer = server.post("/api/events/batch", [{"type": "a"}, {"payload": 1}])
    assert answer.status == 422
    assert answer.json["rejected"] == 2 and answer.json["accepted"] == 0 and len(answer.json["errors"]) == 2


def test_duplicates(server):
    sent = events(2, "dup") + events(1, "dup")
    answer = server.post("/api/events/batch?wait=stored", sent)
    assert answer.status == 201
    assert (answer.json["accepted"], answer.json["duplicates"]) == (2, 1)
    assert answer.json["items"][2]["status"] == "duplicate"
    again = server.post("/api/events/batch?wait=stored", sent)
    assert again.status == 200
    assert (again.json["accepted"], again.json["duplicates"]) == (0, 3)


def test_empty_batch(server):
    answer = server.post("/api/events/batch", [])
    assert answer.status == 202 and answer.json["accepted"] == 0 and answer.json["items"] == []


@pytest.mark.parametrize("body, offset", [
    (b'[{"type":"a","payload":1},{"type":"a"', 37), (b'[{"type":"a","payload":1} {}]', 26),
    (b'[{"type":"a","payload":1}]]', 26), (b'[{"type":"a","payload":1},]', 26),
])
def test_malformed_takes_nothing(server, body, offset):
    before = server.get("/api/v1/status").json["durable_position"]
    answer = server.request("POST", "/api/events/batch", body, {"Content-Type": "application/json"})
    assert answer.status == 400 and answer.json["code"] == "malformed", answer
    assert answer.json["offset"] == offset
    assert server.get("/api/v1/status").json["durable_position"] == before


def test_a_thousand_items_are_answered(server):
    answer = server.post("/api/events/batch", lines(events(1500, "many")), headers=NDJSON)
    assert answer.status == 202
    assert answer.json["accepted"] == 1500 and len(answer.json["items"]) == 1000
    server.wait_applied(answer.json["position"])
    assert stored(server, "many") == [f"many-{n}" for n in range(1500)]


def test_an_event_above_the_limit_in_a_batch(server):
    sent = events(1, "big-a") + events(1, "big-b", 262144) + events(1, "big-c")
    answer = server.post("/api/events/batch?wait=stored", lines(sent), headers=NDJSON)
    assert answer.status in (201, 202), answer
    assert answer.json["rejected"] == 1
    assert [i for i in answer.json["items"] if i["index"] == 1][0]["code"] == "payload_too_large"
