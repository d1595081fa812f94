"""Promise: a body above 256 KiB is taken whole or not at all, its progress can be read, and it ends as what was
sent."""
import json

import pytest

from black_box import until
from test_batch import NDJSON, events, lines, stored


def upload(server, id, key=True):
    return server.get(f"/api/v1/uploads/{id}", key=key)


def finished(server, id):
    def look():
        got = upload(server, id)
        return got.json if got.status == 200 and got.json["state"] not in ("accepted", "applying") else None
    return until(look)


def test_lines_as_an_upload(server):
    answer = server.post("/api/events/batch", lines(events(4000, "up", 100)), headers=NDJSON)
    assert answer.status == 202, answer
    got = answer.json
    assert got["accepted"] == 4000 and len(got["items"]) == 1000
    assert got["status_url"] == f"/api/v1/uploads/{got['upload_id']}"
    done = finished(server, got["upload_id"])
    assert done["state"] == "processed" and done["points_total"] == done["points_applied"] == 4000
    assert done["counts"]["inserted"] == 4000 and done["errors"] == [] and done["finished_at"]
    assert sorted(stored(server, "up")) == sorted(f"up-{n}" for n in range(4000))


def test_array_with_rejected_elements(server):
    sent = events(4000, "part", 100)
    sent[3500]["type"] = "not good"
    answer = server.post("/api/events/batch", sent)
    assert answer.status == 202 and answer.json["rejected"] == 1
    assert [i["index"] for i in answer.json["items"] if i["status"] == "rejected"] == [3500]
    done = finished(server, answer.json["upload_id"])
    assert done["state"] == "partial" and done["counts"]["rejected"] == 1 and done["counts"]["inserted"] == 3999
    assert done["errors"][0]["index"] == 3500


def test_status_before_it_is_applied(weir):
    server = weir(APPLY_PAUSED=1)
    got = server.post("/api/events/batch", lines(events(3000, "early", 100)), headers=NDJSON).json
    answer = upload(server, got["upload_id"])
    assert answer.status == 200 and answer.json["state"] == "accepted"
    assert answer.json["points_total"] == 3000 and answer.json["points_applied"] == 0
    assert upload(server, "00000000-0000-0000-0000-000000000000").status == 404
    other = server.new_org("uploads-early")
    assert upload(server, got["upload_id"], key=other).status == 404


def test_sent_twice(server):
    body = lines(events(3000, "again", 100))
    first = server.post("/api/events/batch", body, headers=NDJSON).json
    assert finished(server, first["upload_id"])["counts"]["inserted"] == 3000
    second = server.post("/api/events/batch", body, headers=NDJSON).json
    counts = finished(server, second["upload_id"])["counts"]
    assert (counts["inserted"], counts["duplicates"]) == (0, 3000)
    assert len(stored(server, "again")) == 3000


@pytest.mark.parametrize("atomic, status", [("true", 422), ("false", 202)])
def test_atomic(server, atomic, status):
    sent = events(3000, f"atom-{atomic}", 100)
    sent[2999]["type"] = ""
    answer = server.post(f"/api/events/batch?atomic={atomic}", sent)
    assert answer.status == status
    if status == 202:
        finished(server, answer.json["upload_id"])


def test_a_malformed_one_leaves_nothing(server):
    before = server.get("/api/v1/uploads").json["uploads"]
    body = json.dumps(events(4000, "broken", 100)).encode()[:-1]
    answer = server.request("POST", "/api/events/batch", body, {"Content-Type": "application/json"})
    assert answer.status == 400 and answer.json["offset"] == len(body)
    assert server.get("/api/v1/uploads").json["uploads"] == before
    assert stored(server, "broken") == []


def test_wait_stored(server):
    answer = server.post("/api/events/batch?wait=stored", lines(events(3000, "waits", 100)), headers=NDJSON)
    assert answer.status == 201 and answer.json["durability"] == "stored", answer
    assert len(stored(server, "waits")) == 3000


def test_list_is_paged_and_of_one_org(server):
    for n in range(3):
        server.post("/api/events/batch?wait=stored", lines(events(3000, f"page{n}", 100)), headers=NDJSON)
    found, cursor = [], ""
    while True:
        page = server.get(f"/api/v1/uploads?limit=2{cursor}").json
        assert len(page["uploads"]) <= 2
        found += [one["upload_id"] for one in page["uploads"]]
        if page["next_cursor"] is None:
            break
        cursor = "&cursor=" + page["next_cursor"]
    assert len(found) == len(set(found)) >= 3
    other = server.new_org("uploads-other")
    assert server.get("/api/v1/uploads", key=other).json["uploads"] == []
    assert upload(server, found[0], key=other).status == 404
    assert server.request("DELETE", f"/api/v1/uploads/{found[0]}", key=other).status == 404


def test_delete_keeps_the_events(server):
    got = server.post("/api/events/batch", lines(events(3000, "gone", 100)), headers=NDJSON).json
    finished(server, got["upload_id"])
    files = list((server.data_dir / "uploads").iterdir())
    assert server.request("DELETE", f"/api/v1/uploads/{got['upload_id']}").status == 204
    assert upload(server, got["upload_id"]).status == 404
    assert server.request("DELETE", f"/api/v1/uploads/{got['upload_id']}").status == 404
    assert len(list((server.data_dir / "uploads").iterdir())) == len(files) - 1
    assert len(stored(server, "gone")) == 3000
