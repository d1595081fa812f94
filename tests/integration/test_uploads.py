"""Promise: a body above 256 KiB is taken whole or not at all, its progress can be read, and it ends as what was
sent."""
import base64
import json
import os
import re
import socket
import sqlite3
import threading

import pytest

from black_box import SLOWER, WAIT_SECONDS, check_problem, problem_of, read_all, status_of, until
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
    bodies = server.bodies()[0]
    assert server.request("DELETE", f"/api/v1/uploads/{got['upload_id']}").status == 204
    assert upload(server, got["upload_id"]).status == 404
    assert server.request("DELETE", f"/api/v1/uploads/{got['upload_id']}").status == 404
    assert len(server.bodies()[0]) == len(bodies) - 1
    assert len(stored(server, "gone")) == 3000


# --- a backlog that is full -------------------------------------------------------------------------

MEGABYTE = 1_000_000


@pytest.mark.sqlite_alone
def test_a_busy_store_is_no_upload_in_progress(weir):
    server = weir()
    got = server.post("/api/events/batch?wait=stored", lines(events(3000, "busy", 100)), headers=NDJSON).json
    database = sqlite3.connect(server.data_dir / "weir.db", isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    for answer in (server.request("DELETE", f"/api/v1/uploads/{got['upload_id']}"),
                   server.post("/api/v1/erase", {"subject": "ann"})):
        assert answer.status == 503 and answer.json["code"] == "unavailable", answer
    database.close()
    until(lambda: server.request("DELETE", f"/api/v1/uploads/{got['upload_id']}").status == 204)


def random_lines(megabytes):
    """Events that hardly compress (base64: six bits of eight)."""
    out, size = [], 0
    while size < megabytes * MEGABYTE:
        text = base64.b64encode(os.urandom(60_000)).decode()
        out.append(json.dumps({"type": "a.b", "payload": {"text": text}}) + "\n")
        size += len(out[-1])
    return "".join(out).encode()


class Sender:
    """An upload on a socket of its own, sent piece by piece or by a thread of its own."""

    def __init__(self, server, key, body):
        self.body = body
        self.answer = None
        self.socket = socket.create_connection(("127.0.0.1", server.port), timeout=120 * SLOWER)
        self.socket.sendall((f"POST /api/events/batch HTTP/1.1\r\nHost: a\r\nX-API-Key: {key}\r\n"
                             "Content-Type: application/x-ndjson\r\nConnection: close\r\n"
                             f"Content-Length: {len(body)}\r\n\r\n").encode())

    def send(self, start, end):
        self.socket.sendall(self.body[start:end])

    def send_all_in_background(self, start):
        def run():
            try:
                self.send(start, len(self.body))
            except OSError:
                pass  # refused before its end
            self.answer = read_all(self.socket)
        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def wait(self):
        self.thread.join(WAIT_SECONDS * SLOWER)
        assert self.answer, "no answer"
        self.socket.close()
        return status_of(self.answer)


def hold(server, name, body):
    """An accepted upload of another org: it holds its bytes of the backlog as long as nothing is applied."""
    answer = server.post("/api/events/batch", body, headers=NDJSON, key=server.new_org(name))
    assert answer.status == 202, answer


def test_a_full_backlog_pushes_back_and_goes_on(weir):
    """Half way it is not read further until there is room; at the head it is told at once."""
    server = weir(JOURNAL_MAX_MB=16, APPLY_PAUSED=1, HTTP_RATE_GRACE=10 * SLOWER)  # others are let in meanwhile
    body = random_lines(10)
    late = [Sender(server, server.new_org(f"waits-{n}"), body[:body.rindex(b"\n", 0, 5 * MEGABYTE) + 1])
            for n in range(2)]
    for one in late:
        one.send(0, 300_000)
    hold(server, "holds", body)  # 7.5 MB of 16.8
    held = server.bodies()[1]
    going = Sender(server, server.new_org("goes"), body)
    going.send(0, 9 * MEGABYTE)  # 6.6 MB
    until(lambda: server.bodies()[1] > held + 6 * MEGABYTE)
    for one in late:
        one.send_all_in_background(300_000)  # 3.8 MB each
    until(lambda: server.bodies()[1] > held + 8 * MEGABYTE)
    refused = server.post("/api/events/batch", body, headers=NDJSON)
    check_problem(refused, 429, "queue_full")
    assert int(refused.headers["retry-after"]) >= 1
    assert [one.answer for one in late] == [None, None]
    going.socket.close()  # what it had is given back
    assert [one.wait() for one in late] == [202, 202]
    assert len(server.bodies()[0]) == 3


@pytest.mark.seconds(30)
def test_a_backlog_that_stays_full_ends_a_body(weir):
    """30 s without room: 503, and nothing of it is left."""
    server = weir(JOURNAL_MAX_MB=16, APPLY_PAUSED=1, HTTP_RATE_GRACE=10 * SLOWER)  # others are let in meanwhile
    body = random_lines(10)
    late = Sender(server, server.key, body)
    late.send(0, 300_000)
    for n in range(2):
        hold(server, f"holds-{n}", body)
    late.send_all_in_background(300_000)
    assert late.wait() == 503
    assert problem_of(late.answer)["code"] == "journal_unavailable"
    assert re.search(rb"(?i)\r\nretry-after: [1-9]", late.answer)
    until(lambda: len(server.bodies()[0]) == 2)


def test_a_body_that_never_has_room_is_told_so(weir):
    server = weir(JOURNAL_MAX_MB=16, APPLY_PAUSED=1)
    answer = server.post("/api/events/batch", random_lines(16), headers=NDJSON)
    check_problem(answer, 413, "payload_too_large")
    assert server.post("/api/events/batch", random_lines(1), headers=NDJSON).status == 202


def test_one_orgs_slow_uploads_stop_no_other(server):
    body = random_lines(1)
    slow = server.new_org("uploads-slow")
    senders = [Sender(server, slow, body) for _ in range(40)]
    for one in senders:
        one.send(0, 300_000)
    other = server.new_org("uploads-quick")
    answer = server.post("/api/events/batch", body, headers=NDJSON, key=other)
    assert answer.status == 202, answer
    # Those that wait for the others of their own org have their turn when these end.
    for one in senders:
        one.send_all_in_background(300_000)
    assert [one.wait() for one in senders] == [202] * 40
