"""Promise: a tag names one answer to the byte; 304 comes exactly while the answer would be the same."""
import gzip

import pytest

READS = ["/api/inbox", "/api/v1/events", "/api/v1/events?type=a&limit=3", "/api/v1/uploads", "/api/v1/dead-letters",
         "/api/v1/audit"]


@pytest.fixture(autouse=True)
def some(server):
    assert server.post("/api/events?wait=stored", {"type": "a", "payload": "x" * 3000, "dedup_id": "tag"}).status < 300


@pytest.mark.parametrize("path", READS)
def test_not_modified(server, path):
    first = server.get(path)
    assert first.status == 200
    tag = first.headers["etag"]
    assert tag.startswith('"') and first.headers["cache-control"] == "private, no-cache"
    for given in (tag, f"W/{tag}", f'"x", {tag}', "*"):
        again = server.get(path, headers={"If-None-Match": given})
        assert again.status == 304 and again.body == b"" and again.headers["etag"] == tag, given
        assert again.headers["cache-control"] == "private, no-cache"
    other = server.get(path, headers={"If-None-Match": '"other"'})
    assert other.status == 200 and other.body == first.body and other.headers["etag"] == tag


def test_a_change_changes_the_tag(server):
    tag = server.get("/api/inbox").headers["etag"]
    id = server.post("/api/events?wait=stored", {"type": "b", "payload": 1}).json["id"]
    changed = server.get("/api/inbox", headers={"If-None-Match": tag})
    assert changed.status == 200 and changed.headers["etag"] != tag
    tag = changed.headers["etag"]
    server.post(f"/api/ack/{id}")
    assert server.get("/api/inbox", headers={"If-None-Match": tag}).status == 200


def test_a_duplicate_changes_nothing(server):
    tag = server.get("/api/v1/events").headers["etag"]
    server.post("/api/events?wait=stored", {"type": "a", "payload": "x" * 3000, "dedup_id": "tag"})
    assert server.get("/api/v1/events", headers={"If-None-Match": tag}).status == 304


def test_another_orgs_change_changes_nothing(server):
    other = server.new_org("conditional-other")
    tag = server.get("/api/inbox").headers["etag"]
    server.post("/api/events?wait=stored", {"type": "a", "payload": 1}, key=other)
    assert server.get("/api/inbox", headers={"If-None-Match": tag}).status == 304
    assert server.get("/api/inbox", headers={"If-None-Match": tag}, key=other).status == 200


def test_the_tag_covers_the_query_and_the_coding(server):
    tags = {server.get(path, headers=headers).headers["etag"]
            for path in ("/api/inbox", "/api/inbox?limit=5", "/api/inbox?type=a", "/api/v1/events")
            for headers in ({}, {"Accept-Encoding": "gzip"}, {"Accept-Encoding": "br"}, {"Accept-Encoding": "zstd"})}
    assert len(tags) == 16


def test_the_tag_does_not_depend_on_spelling(server):
    one = server.get("/api/v1/events?limit=100&type=a&order=desc").headers["etag"]
    assert server.get("/api/v1/events?order=desc&type=a&limit=100").headers["etag"] == one


def test_codings(server):
    plain = server.get("/api/inbox")
    assert "content-encoding" not in plain.headers
    coded = server.get("/api/inbox", headers={"Accept-Encoding": "gzip"})
    assert coded.headers["content-encoding"] == "gzip" and gzip.decompress(coded.body) == plain.body
    assert "accept-encoding" in coded.headers["vary"].lower()
    for accepted, coding in (("br", "br"), ("zstd", "zstd"), ("gzip;q=0.5, br;q=0.9", "br"), ("*", "zstd"),
                             ("gzip, deflate, br, zstd", "zstd")):
        got = server.get("/api/inbox", headers={"Accept-Encoding": accepted})
        assert got.headers["content-encoding"] == coding, accepted


def test_head(server):
    plain = server.get("/api/inbox")
    head = server.request("HEAD", "/api/inbox")
    assert head.status == 200 and head.body == b""
    assert head.headers["content-length"] == str(len(plain.body)) and head.headers["etag"] == plain.headers["etag"]


def test_openapi_is_tagged(server):
    tag = server.get("/api/openapi.yaml", key=None).headers["etag"]
    assert server.get("/api/openapi.yaml", key=None, headers={"If-None-Match": tag}).status == 304


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready", "/health/intake", "/livez", "/readyz"])
def test_health_is_not_stored(server, path):
    answer = server.get(path, key=None)
    assert answer.status == 200 and answer.headers["cache-control"] == "no-store" and "etag" not in answer.headers
