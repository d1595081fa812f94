"""Promise: what an org keeps for so many days is there as long and gone after, with all that stands beside it; what
is younger, kept longer, or another org's stays."""
import json
import signal

import pytest

from black_box import events, until
from test_clock import Clock
from test_telemetry import NDJSON, Plant, iso, letters

DAY = 86_400
DAYS = {"events_days": 30, "readings_days": 30, "rollups_days": 400, "dead_letters_days": 30}


@pytest.fixture
def clock(tmp_path):
    return Clock(tmp_path / "clock")


def now_ms(clock, ago_s=0):
    return int(clock.now() * 1000) - int(ago_s * 1000)


def buckets(plant, key):
    answer = plant.server.get(f"/api/v1/readings?device_id={plant.device['id']}&bucket=1h", key=key)
    assert answer.status == 200, answer
    return answer.json["points"]


def fill(server, clock, key, name):
    """A hundred days ago: events, readings, a dead letter; gives what is to be looked for later."""
    plant = Plant(server, name, key)
    lines = "".join(json.dumps({"type": "old", "payload": n, "subject": f"s/{n}", "dedup_id": f"{name}-{n}"}) + "\n"
                    for n in range(700))
    sent = server.post("/api/events/batch?wait=stored", lines, headers=NDJSON, key=key).json
    assert sent["accepted"] == 700
    ids = [item["id"] for item in sent["items"][:5]]
    assert server.post("/api/inbox/ack", {"event_ids": ids}, key=key).json["acknowledged"] == 5
    assert plant.send([plant.message(n, iso(now_ms(clock, 60 + n * 600))) for n in range(40)]).status == 200
    assert plant.send(plant.message(1, parameter="nobody-knows")).status == 200
    assert len(letters(server, key)) == 1
    return plant, ids, buckets(plant, key)


@pytest.mark.released
def test_what_is_over_goes_and_the_rest_stays(weir, clock):
    clock.step(-100 * DAY)
    server = weir(**clock.environment())
    other = server.new_org("keeps")
    mine, ids, before = fill(server, clock, server.key, "goes")
    theirs, their_ids, their_buckets = fill(server, clock, other, "keeps")
    assert server.request("PUT", "/api/v1/settings", {"retention": DAYS}).status == 200
    until(lambda: server.number_in_store("SELECT count(*) FROM rollup_dirty") == 0)
    server.stop()
    clock.step(0)
    server.start()
    young = server.post("/api/events?wait=stored", {"type": "new", "payload": 1}).json["id"]
    until(lambda: server.get(f"/api/v1/events/{ids[0]}").status == 404)
    until(lambda: [e["id"] for e in events(server) if e["type"] != "device.silent"] == [young])
    assert all(server.get(f"/api/v1/events/{one}").status == 404 for one in ids)
    assert server.get("/api/inbox?status=acknowledged").json["events"] == []
    assert server.get("/api/v1/events?subject=s/1").json["events"] == []
    until(lambda: mine.readings() == [])
    until(lambda: letters(server) == [])
    assert server.get(f"/api/v1/readings?device_id={mine.device['id']}&latest=true").json["readings"] == []
    assert buckets(mine, server.key) == before  # roll-ups are kept longer
    until(lambda: server.number_in_store("SELECT count(*) FROM readings r JOIN orgs o ON o.number = r.org"
                                " WHERE o.readings_days IS NOT NULL") == 0)
    # What comes late for a time that is gone, and an id that comes again.
    assert mine.send(mine.message(7, iso(now_ms(clock, 35 * DAY)))).status == 200
    assert [one["reason"] for one in letters(server)] == ["too_old"]
    assert mine.send(mine.message(8, iso(now_ms(clock, 25 * DAY)))).status == 200
    assert [r["value"] for r in mine.readings()] == [8]
    again = server.post("/api/events?wait=stored", {"type": "old", "payload": 0, "dedup_id": "goes-0"})
    assert again.status == 201
    assert again.json["id"] == ids[0] and server.get(f"/api/v1/events/{ids[0]}").status == 200
    # The other org keeps everything.
    assert all(server.get(f"/api/v1/events/{one}", key=other).status == 200 for one in their_ids)
    assert len(theirs.readings()) == 40 and len(letters(server, other)) == 1
    assert buckets(theirs, other) == their_buckets


@pytest.mark.released
def test_what_is_gone_stays_gone_after_a_kill(weir, clock):
    clock.step(-50 * DAY)
    server = weir(**clock.environment())
    _, ids, _ = fill(server, clock, server.key, "killed")
    assert server.request("PUT", "/api/v1/settings", {"retention": {"events_days": 1}}).status == 200
    server.stop()
    clock.step(0)
    for _ in range(3):
        server.start()
        server.stop(signal.SIGKILL)
    server.start()
    until(lambda: server.get(f"/api/v1/events/{ids[0]}").status == 404)
    until(lambda: server.number_in_store("SELECT count(*) FROM events WHERE type = 'old'") == 0)
    until(lambda: server.number_in_store("SELECT count(*) FROM event_acks") == 0)
    assert server.number_in_store("SELECT count(*) FROM event_hours h WHERE NOT EXISTS (SELECT 1 FROM events e"
                         " WHERE e.created_ms / 3600000 = h.hour)") == 0


def test_what_is_told_of_an_upload_goes_with_the_events(weir, clock):
    """Its raw body must have gone before; another org's is told of for ever."""
    clock.step(-100 * DAY)
    server = weir(**clock.environment())
    other = server.new_org("keeps")
    body = "".join(json.dumps({"type": "old", "payload": "x" * 300}) + "\n" for _ in range(1500))

    def upload(key):
        return server.post("/api/events/batch?wait=stored", body, headers=NDJSON, key=key).json["upload_id"]

    mine, theirs = upload(server.key), upload(other)
    assert server.request("PUT", "/api/v1/settings", {"retention": {**DAYS, "raw_days": 200}}).status == 200
    server.stop()
    clock.step(-20 * DAY)
    server.start()
    young = upload(server.key)
    until(lambda: events(server, "&type=old") and len(events(server, "&type=old")) == 1500)
    assert server.get(f"/api/v1/uploads/{mine}/raw").body.decode() == body
    assert server.request("PUT", "/api/v1/settings", {"retention": DAYS}).status == 200
    server.stop()
    clock.step(0)
    for _ in range(2):  # a look at each start: first the body goes, then the row
        server.start()
        until(lambda: server.get(f"/api/v1/uploads/{mine}/raw").status == 404)
        server.stop()
    server.start()
    until(lambda: server.get(f"/api/v1/uploads/{mine}").status == 404)
    assert server.get(f"/api/v1/uploads/{young}").status == 200
    assert server.get(f"/api/v1/uploads/{theirs}", key=other).status == 200
