"""Promise: the clients of other systems can send here as they are: the same bytes, the answers that they expect.

The bodies and headers are those that were captured from @segment/analytics-node 3.1.0,
@rudderstack/rudder-sdk-node 3.0.13 and posthog-node 5.70.0.
"""
import gzip
import json

import pytest

from conftest import basic

SEGMENT = {"batch": [
    {"type": "track", "event": "Item Bought", "userId": "u1", "messageId": "ajs-1", "properties": {"sku": "a"},
     "timestamp": "2026-01-02T03:04:05.678Z", "context": {}, "integrations": {}, "_metadata": {}},
    {"type": "identify", "userId": "u1", "messageId": "ajs-2", "traits": {"name": "N"}},
], "writeKey": "", "sentAt": "2026-01-02T03:04:06.000Z"}


def posthog(key, count=2, name="ph", pad=0):
    return {"api_key": key, "batch": [
        {"event": "$pageview", "distinct_id": "d1", "uuid": f"{name}-{n}", "timestamp": "2026-01-02T03:04:05Z",
         "properties": {"n": n, "pad": "p" * pad}} for n in range(count)], "sent_at": "2026-01-02T03:04:06Z"}


def stored(server, position, query=""):
    return server.get(f"/api/v1/events?limit=1000&wait_for={position}{query}").json["events"]


def test_segment_batch(server):
    answer = server.post("/v1/batch", SEGMENT, key=None, headers={"Authorization": basic(server.key)})
    assert answer.status == 200 and answer.json["success"] is True
    assert answer.json["accepted"] == 2 and answer.json["rejected"] == 0
    found = {e["dedup_id"]: e for e in stored(server, answer.json["position"])}
    assert found["ajs-1"]["subject"] == "u1" and found["ajs-1"]["occurred_at"] == "2026-01-02T03:04:05.678Z"
    again = server.post("/v1/batch?wait=stored", SEGMENT, key=None, headers={"Authorization": basic(server.key)})
    assert again.status == 200 and again.json["duplicates"] == 2


def test_rudderstack_sends_json_as_a_form(server):
    body = gzip.compress(json.dumps({"batch": [{"type": "track", "event": "e", "userId": "u", "messageId": "r-1"}],
                                     "sentAt": "2026-01-02T03:04:06.000Z"}).encode())
    answer = server.request("POST", "/v1/batch", body, {
        "Authorization": basic(server.key), "Content-Encoding": "gzip",
        "Content-Type": "application/x-www-form-urlencoded"}, key=None)
    assert answer.status == 200 and answer.json["accepted"] == 1


def test_segment_key_in_the_body(server):
    answer = server.post("/v1/batch", {**SEGMENT, "writeKey": server.key}, key=None)
    assert answer.status == 200 and answer.json["accepted"] + answer.json["duplicates"] == 2


@pytest.mark.parametrize("call", ["track", "identify", "page"])
def test_single_calls(server, call):
    body = {"userId": "u9", "messageId": f"one-{call}", "event": "e", "name": "n", "properties": {}, "traits": {}}
    answer = server.post(f"/v1/{call}", body, key=None, headers={"Authorization": basic(server.key)})
    assert answer.status == 200 and answer.json["success"] is True, answer
    assert [e["subject"] for e in stored(server, answer.json["position"])
            if e["dedup_id"] == f"one-{call}"] == ["u9"]
    in_body = server.post(f"/v1/{call}?wait=stored", {**body, "writeKey": server.key}, key=None)
    assert in_body.status == 200 and in_body.json["duplicates"] == 1, in_body


@pytest.mark.parametrize("path", ["/batch/", "/batch"])
def test_posthog(server, path):
    body = gzip.compress(json.dumps(posthog(server.key, name=path)).encode())
    answer = server.request("POST", path, body, {"Content-Type": "application/json", "Content-Encoding": "gzip"},
                            key=None)
    assert answer.status == 200 and answer.json["status"] == "Ok" and answer.json["accepted"] == 2, answer
    assert sorted(e["dedup_id"] for e in stored(server, answer.json["position"])
                  if (e["dedup_id"] or "").startswith(path + "-")) == [f"{path}-0", f"{path}-1"]


def test_posthog_large(server):
    """The key comes first, so the rest may be an upload."""
    answer = server.post("/batch/?wait=stored", posthog(server.key, 3000, "large", 300), key=None)
    assert answer.status == 200 and answer.json["accepted"] == 3000 and answer.json["upload_id"]


def test_a_large_body_whose_key_comes_last_is_refused(server):
    body = posthog(server.key, 3000, "late", 300)
    body["api_key"] = body.pop("api_key")
    answer = server.post("/batch/", body, key=None)
    assert answer.status == 413 and answer.json["code"] == "payload_too_large"


def test_a_small_body_whose_key_comes_last(server):
    body = posthog(server.key, 3, "last")
    body["api_key"] = body.pop("api_key")
    assert server.post("/batch/", body, key=None).json["accepted"] == 3


@pytest.mark.parametrize("key", ["", "weir_x_y", "phc_123", None, 5])
def test_bad_keys_in_the_body(server, key):
    answer = server.post("/batch/", posthog(key), key=None)
    assert answer.status == 401, answer


def test_no_key_anywhere(server):
    assert server.post("/batch/", {"batch": []}, key=None).status == 401
    assert server.request("POST", "/v1/track", b"", key=None).status == 401
    assert server.request("POST", "/batch/", b"no json", key=None).status == 400


def test_scope_of_a_key_in_the_body(server):
    reader = server.post("/api/keys", {"scopes": ["read"]}).json["api_key"]
    assert server.post("/batch/", posthog(reader), key=None).status == 403


def test_rejected_elements_are_told(server):
    body = posthog(server.key, 2, "told")
    del body["batch"][1]["event"]
    answer = server.post("/batch/", body, key=None)
    assert answer.status == 200 and (answer.json["accepted"], answer.json["rejected"]) == (1, 1)
    assert server.post("/v1/batch", {"batch": [{"type": 5}]}).status == 422


def test_malformed(server):
    answer = server.request("POST", "/v1/batch", b'{"batch":[', {"X-API-Key": server.key}, key=None)
    assert answer.status == 400 and answer.json["code"] == "malformed"
