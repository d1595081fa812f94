"""Promise: the inbox shows what is not acknowledged, newest first, page by page without a gap or a repeat."""
import pytest

from black_box import check_problem


@pytest.fixture(scope="module")
def filled(server):
    """30 events; gives their ids in the order in which they came."""
    sent = [{"type": f"in.{n % 3}", "payload": n, "subject": f"s{n % 2}", "app": "x" if n < 10 else None}
            for n in range(30)]
    got = server.post("/api/events/batch?wait=stored", sent)
    assert got.status == 201
    return [item["id"] for item in got.json["items"]]


def pages(server, path, limit, key=True):
    found, cursor = [], ""
    while True:
        answer = server.get(f"{path}{'&' if '?' in path else '?'}limit={limit}{cursor}", key=key)
        assert answer.status == 200, answer
        assert len(answer.json["events"]) <= limit
        found += [e["id"] for e in answer.json["events"]]
        if answer.json["next_cursor"] is None:
            return found
        cursor = "&cursor=" + answer.json["next_cursor"]


@pytest.mark.parametrize("limit", [1, 7, 30, 31])
def test_pages(server, filled, limit):
    assert pages(server, "/api/v1/events", limit) == filled[::-1]
    assert pages(server, "/api/v1/events?order=asc", limit) == filled


def test_filters(server, filled):
    assert pages(server, "/api/v1/events?type=in.1", 100) == filled[1::3][::-1]
    assert pages(server, "/api/v1/events?subject=s1", 100) == filled[1::2][::-1]
    assert pages(server, "/api/v1/events?app=x", 4) == filled[:10][::-1]
    assert pages(server, "/api/v1/events?type=in.0&subject=s0&app=x&order=asc", 1) == [filled[0], filled[6]]
    assert pages(server, "/api/v1/events?type=none", 100) == []


def test_times(server, filled):
    created = server.get(f"/api/v1/events/{filled[0]}").json["created_at"]
    assert pages(server, f"/api/v1/events?start={created}", 100) == filled[::-1]
    assert pages(server, f"/api/v1/events?end={created}", 100) == []
    for alias in ("since", "start_date", "from"):
        assert pages(server, f"/api/v1/events?{alias}=4102444800000", 100) == []
    for alias in ("until", "end_date", "to"):
        assert pages(server, f"/api/v1/events?{alias}=2000-01-01T00:00:00Z", 100) == []


@pytest.mark.parametrize("query", ["limit=0", "limit=-1", "limit=x", "limit=1.5", "cursor=abc", "order=up",
                                   "status=new", "start=yesterday", "end=x", "wait_for=1"])
def test_malformed(server, query):
    answer = server.get(f"/api/inbox?{query}")
    assert answer.status == 400 and answer.json["code"] == "bad_query"


def test_a_limit_above_the_maximum_is_clamped(server, filled):
    assert server.get("/api/v1/events?limit=100000").status == 200
    assert server.get("/api/v1/events?limit=" + "9" * 40).status == 200


def test_a_cursor_is_bound_to_its_order_and_org(server, filled):
    cursor = server.get("/api/v1/events?limit=1").json["next_cursor"]
    assert server.get(f"/api/v1/events?limit=1&cursor={cursor}").status == 200
    assert server.get(f"/api/v1/events?limit=1&order=asc&cursor={cursor}").status == 400
    other = server.new_org("inbox-cursor")
    assert server.get(f"/api/v1/events?limit=1&cursor={cursor}", key=other).status == 400


def test_acknowledging(weir):
    server = weir()
    ids = [item["id"] for item in server.post(
        "/api/events/batch?wait=stored", [{"type": "a", "payload": n} for n in range(6)]).json["items"]]
    assert pages(server, "/api/inbox", 100) == ids[::-1]
    answer = server.post(f"/api/ack/{ids[2]}")
    assert answer.status == 200 and answer.json == {"success": True}
    assert server.post(f"/api/ack/{ids[2]}").status == 200
    assert pages(server, "/api/inbox", 1) == [i for i in ids[::-1] if i != ids[2]]
    unknown = "00000000-0000-0000-0000-000000000000"
    answer = server.post("/api/inbox/ack", {"event_ids": [ids[0], ids[5], unknown, "nonsense"]})
    assert answer.status == 200 and answer.json == {"acknowledged": 2, "failed": 2}
    assert pages(server, "/api/inbox", 100) == [ids[4], ids[3], ids[1]]
    assert pages(server, "/api/inbox?status=acknowledged", 1) == [ids[5], ids[2], ids[0]]
    assert pages(server, "/api/inbox?status=all", 100) == ids[::-1]
    assert pages(server, "/api/v1/events", 2) == ids[::-1]
    assert pages(server, "/api/v1/events?status=pending", 100) == [ids[4], ids[3], ids[1]]
    assert server.get(f"/api/v1/events/{ids[0]}").json["delivery_status"] == "acknowledged"
    # It survives a crash: an acknowledgement is durable when it is answered.
    server.kill()
    server.start()
    assert pages(server, "/api/inbox", 100) == [ids[4], ids[3], ids[1]]


@pytest.mark.parametrize("body", [{}, {"event_ids": []}, {"event_ids": "x"}, {"event_ids": [1]},
                                  {"event_ids": ["x"] * 1001}, [], {"event_ids": None}])
def test_acknowledging_nothing_right(server, body):
    assert server.post("/api/inbox/ack", body).status == 422


@pytest.mark.parametrize("body", [b"", b"{", b'{"event_ids":["x"]', b"\xff"])
def test_acknowledging_malformed(server, body):
    answer = server.request("POST", "/api/inbox/ack", body, {"Content-Type": "application/json"})
    assert answer.status in (400, 422)


def test_a_key_twice_is_refused(server):
    answer = server.request("POST", "/api/inbox/ack", b'{"event_ids":["x"],"event_ids":["y"]}',
                            {"Content-Type": "application/json"})
    assert answer.status == 422


def test_another_orgs_event_cannot_be_acknowledged(server, filled):
    other = server.new_org("inbox-other")
    assert server.post(f"/api/ack/{filled[0]}", key=other).status == 404
    assert server.post("/api/inbox/ack", {"event_ids": [filled[0]]}, key=other).json == {
        "acknowledged": 0, "failed": 1}
    assert server.get(f"/api/v1/events/{filled[0]}").json["delivery_status"] == "pending"
    assert pages(server, "/api/inbox?status=all", 100, key=other) == []


def test_reading_ones_own_write(server):
    for n in range(20):
        answer = server.post("/api/events", {"type": "own", "payload": n}).json
        newest = server.get(f"/api/inbox?limit=1&wait_for={answer['position']}").json["events"][0]
        assert newest["id"] == answer["id"]


@pytest.mark.seconds(10)
def test_a_position_that_does_not_come(weir):
    server = weir(APPLY_PAUSED=1)
    position = server.post("/api/events", {"type": "a", "payload": 1}).json["position"]
    assert server.get("/api/inbox").json["events"] == []
    answer = server.get(f"/api/inbox?wait_for={position}")
    assert answer.status == 504 and answer.json["code"] == "timeout"
