"""Promise: a limit lets through what it says and refuses the rest with the time to come back."""
import json
import re

import pytest

from black_box import metric
from conftest import LIMITS

FAILED = 'redis_leases_total{result="failed"}'


def limited_key(server, **limits):
    return server.post("/api/keys", {"scopes": ["read", "write"], "limits": limits}).json["api_key"]


def admitted(server, count, ask, size=1):
    """`count` of this size are let through, and no more. A shared limit may for a moment refuse what comes before Redis
    has answered about the one before, and says then that there is room. A charge whose answer was lost counts twice, so
    that fewer pass; the metrics say whether one was. Gives the last refusal."""
    taken = 0
    while True:
        answer = ask()
        taken += answer.status != 429
        if answer.status == 429 and (LIMITS == "local" or int(answer.headers["x-ratelimit-remaining"]) < size):
            break
    assert taken == count or (taken < count and LIMITS == "redis" and metric(server, FAILED) > 0)
    return answer


def all_bytes(server, key):
    """A megabyte passes, to the last event that fits whole. Gives the refusal of the next."""
    event = {"type": "a", "payload": "x" * 4_000}
    size = len(json.dumps(event))
    return admitted(server, 1048576 // size, lambda: server.post("/api/events", event, key=key), size)


def test_requests_of_a_key(server):
    key = limited_key(server, requests_per_minute=20)
    answers = [admitted(server, 20, lambda: server.get("/api/v1/limits", key=key))]
    answers += [server.get("/api/v1/limits", key=key) for _ in range(4)]
    assert [a.status for a in answers] == [429] * 5
    refused = answers[-1]
    assert refused.json["code"] == "rate_limited" and refused.json["violated-policies"] == ["key"]
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.headers["ratelimit-policy"] == '"key";q=20;w=60'
    assert re.fullmatch(r'"key";r=0;t=\d+', refused.headers["ratelimit"])
    assert refused.headers["x-ratelimit-limit"] == "20" and refused.headers["x-ratelimit-remaining"] == "0"
    assert int(refused.headers["x-ratelimit-reset"]) >= 1
    assert server.get("/api/v1/limits").status == 200  # the other keys go on


def asking(answers, ask):
    """Asks, and keeps each answer."""
    def one():
        answers.append(ask())
        return answers[-1]
    return one


def test_headers_come_near_the_limit_only(server):
    key, answers = limited_key(server, requests_per_minute=20), []
    admitted(server, 20, asking(answers, lambda: server.get("/api/v1/limits", key=key)))
    last = [one for one in answers if one.status == 200][-1]
    assert "ratelimit" not in answers[0].headers and "ratelimit" in last.headers


@pytest.mark.parametrize("limits, payload, count", [({"requests_per_minute": 5}, 1, 5),
                                                    ({"mb_per_hour": 1}, "x" * 240_000, 4)])
def test_every_refusal_names_its_limit(server, limits, payload, count):
    key, answers = limited_key(server, **limits), []
    event = {"type": "a", "payload": payload}
    admitted(server, count, asking(answers, lambda: server.post("/api/events", event, key=key)),
             1 if payload == 1 else len(payload))
    refused = [one for one in answers if one.status == 429]
    assert refused and all(one.headers["ratelimit"] and one.headers["x-ratelimit-limit"] for one in refused)


def test_tier_of_an_org(server):
    key = server.new_org("limits-free", tier="free")
    got = server.get("/api/v1/limits", key=key).json
    assert got["requests"]["limit"] == 100 and got["requests"]["window_s"] == 60
    assert got["requests"]["remaining"] == 99
    assert admitted(server, 99, lambda: server.get("/api/v1/limits", key=key)).status == 429


def test_bytes_an_hour(server):
    key = limited_key(server, mb_per_hour=1)
    answer = all_bytes(server, key)
    assert answer.json["code"] == "bytes_limited" and int(answer.headers["retry-after"]) >= 1
    assert ';qu="content-bytes"' in answer.headers["ratelimit-policy"]


REFUSED = {  # of a megabyte and more than a third of it, in more than one piece
    400: ("/api/events/batch", b"[" + b'{"type":"a","payload":"%s"},' % (b"x" * 2000) * 200 + b'{"type":'),
    413: ("/api/events", b'{"type":"a","payload":"%s"}' % (b"x" * 400_000)),
    422: ("/api/events/batch?atomic=true",
          b"[" + b'{"type":"a","payload":"%s"},' % (b"x" * 2000) * 200 + b'{"type":""}]'),
    429: ("/api/events/batch", b"[" + b'{"type":"a","payload":"%s"},' % (b"x" * 2000) * 600 + b'{"type":"a"}]'),
}


@pytest.mark.parametrize("status", REFUSED)
def test_bytes_of_a_refused_body_count_nowhere(server, status):
    key = limited_key(server, mb_per_hour=1)
    path, body = REFUSED[status]
    for _ in range(4):  # more than the hour has
        answer = server.request("POST", path, body, {"Content-Type": "application/json"}, key=key)
        while LIMITS == "redis" and answer.status == 429 != status:
            answer = server.request("POST", path, body, {"Content-Type": "application/json"}, key=key)
        assert answer.status == status, answer
    all_bytes(server, key)


def test_an_upload_above_the_limit_leaves_nothing(server):
    key = limited_key(server, mb_per_hour=1)
    body = b'{"type":"big","payload":"' + b"x" * 1000 + b'"}\n'
    answer = server.request("POST", "/api/events/batch", body * 2000, {"Content-Type": "application/x-ndjson"},
                            key=key)
    assert answer.status == 429 and answer.json["code"] == "bytes_limited"
    assert answer.headers["x-ratelimit-remaining"] == "1048576"  # its own first pieces count nowhere
    assert server.get("/api/v1/events?type=big").json["events"] == []


def test_no_header_turns_limits_off(server):
    key = limited_key(server, requests_per_minute=1)
    headers = {"X-RateLimit-Bypass": "1", "X-Forwarded-For": "127.0.0.1", "X-Internal": "true"}
    assert server.get("/api/v1/limits", key=key, headers=headers).status == 200
    assert server.get("/api/v1/limits", key=key, headers=headers).status == 429


def test_unlimited(server):
    got = server.get("/api/v1/limits").json
    assert got["requests"] == {"limit": None, "remaining": None}
    assert got["event_bytes_max"] == 262144
