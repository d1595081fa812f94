"""Promise: every list honours `order` and `limit`, and a cursor goes on in the order that it was given in."""
import json

import pytest

LISTS = {"/api/keys": ("keys", "asc"), "/api/v1/audit": ("audit", "desc"), "/api/v1/uploads": ("uploads", "desc"),
         "/api/v1/dead-letters": ("dead_letters", "desc")}
KINDS = sorted(LISTS)
UPLOAD = "".join(json.dumps({"type": "big", "payload": "x" * 1000}) + "\n" for _ in range(300))


@pytest.fixture(scope="module", autouse=True)
def rows(server):
    for n in range(4):
        assert server.post("/api/keys", {"name": str(n)}).status == 201
        answer = server.post("/api/events/batch?wait=stored", UPLOAD, headers={"Content-Type": "application/x-ndjson"})
        assert answer.json["upload_id"]


def walk(server, path, query):
    name, found, cursor = LISTS[path][0], [], ""
    while True:
        page = server.get(f"{path}?{query}{cursor}").json
        found += page[name]
        if page["next_cursor"] is None:
            return found
        cursor = "&cursor=" + page["next_cursor"]


@pytest.mark.parametrize("path", KINDS)
def test_order(server, path):
    oldest = walk(server, path, "order=asc&limit=1000")
    assert len(oldest) >= 4 or path == "/api/v1/dead-letters"
    assert walk(server, path, "order=asc&limit=1") == oldest
    assert walk(server, path, "order=desc&limit=3") == oldest[::-1]
    default = oldest if LISTS[path][1] == "asc" else oldest[::-1]
    assert walk(server, path, "limit=2") == default


@pytest.mark.parametrize("path", KINDS)
def test_an_order_that_is_none(server, path):
    answer = server.get(f"{path}?order=up")
    assert answer.status == 400 and answer.json["errors"][0]["pointer"] == "order"


@pytest.mark.parametrize("path", [path for path in KINDS if path != "/api/v1/dead-letters"])
def test_a_cursor_of_the_other_order(server, path):
    cursor = server.get(f"{path}?order=asc&limit=1").json["next_cursor"]
    assert server.get(f"{path}?order=desc&limit=1&cursor={cursor}").status == 400


def test_keys_are_given_page_by_page(server):
    page = server.get("/api/keys?limit=2").json
    assert len(page["keys"]) == 2 and page["next_cursor"]
