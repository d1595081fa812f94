"""Promise: the raw body of an upload is what was sent, byte for byte, for its own org, while it is kept."""
import gzip
import json

import pytest

LINES = "".join(json.dumps({"type": "raw", "payload": {"n": n, "pad": "z" * 100}}) + "\n" for n in range(5000)).encode()
ARRAY = b" " + json.dumps([{"type": "raw", "payload": n} for n in range(20000)]).encode() + b"\n"


def upload(server, body, kind, **headers):
    answer = server.post("/api/events/batch?wait=stored", body, headers={"Content-Type": kind, **headers})
    assert answer.status in (200, 201), answer
    return answer.json["upload_id"]


@pytest.mark.parametrize("body, kind", [(LINES, "application/x-ndjson"), (ARRAY, "application/json")])
def test_as_it_came(server, body, kind):
    name = upload(server, body, kind)
    answer = server.get(f"/api/v1/uploads/{name}/raw")
    assert answer.status == 200 and answer.body == body and answer.headers["content-type"] == kind
    assert answer.headers["content-disposition"] == f'attachment; filename="upload_{name}"'
    coded = server.get(f"/api/v1/uploads/{name}/raw", headers={"Accept-Encoding": "gzip"})
    assert gzip.decompress(coded.body) == body
    again = server.get(f"/api/v1/uploads/{name}/raw", headers={"If-None-Match": answer.headers["etag"]})
    assert again.status == 304


def test_compressed_bodies_are_given_decoded(server):
    name = upload(server, gzip.compress(LINES), "application/x-ndjson", **{"Content-Encoding": "gzip"})
    assert server.get(f"/api/v1/uploads/{name}/raw").body == LINES


def test_nobody_elses(server):
    name = upload(server, LINES, "application/x-ndjson")
    assert server.get(f"/api/v1/uploads/{name}/raw", key=server.new_org("raw-other")).status == 404
    writer = server.post("/api/keys", {"scopes": ["write"]}).json["api_key"]
    assert server.get(f"/api/v1/uploads/{name}/raw", key=writer).status == 403
    for one in ("x", "00000000-0000-0000-0000-000000000000"):
        assert server.get(f"/api/v1/uploads/{one}/raw").status == 404


def test_gone_when_deleted(server):
    name = upload(server, LINES, "application/x-ndjson")
    assert server.request("DELETE", f"/api/v1/uploads/{name}").status == 204
    assert server.get(f"/api/v1/uploads/{name}/raw").status == 404


def test_many_that_do_not_read_to_the_end(server):
    """Readers that go away half way leave nothing open."""
    name = upload(server, LINES * 10, "application/x-ndjson")
    for _ in range(20):
        connection = server.connect()
        connection.request("GET", f"/api/v1/uploads/{name}/raw", headers={"X-API-Key": server.key})
        assert connection.getresponse().read(10) == LINES[:10]
        connection.close()
    assert server.get(f"/api/v1/uploads/{name}/raw").body == LINES * 10
