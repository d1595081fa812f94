"""Promise: an export holds every event that its filter fits, once, in order, in each format and coding."""
import csv
import gzip
import io
import json
import re

import brotli
import pytest
import zstandard

PATH = "/api/v1/export/events"
MANY = 5000
COLUMNS = ["id", "type", "dedup_id", "subject", "source", "app", "payload", "attributes", "occurred_at",
           "created_at", "delivery_status"]


def post(server, *events, key=True):
    body = "".join(json.dumps(one) + "\n" for one in events)
    answer = server.post("/api/events/batch?wait=stored", body, key=key,
                         headers={"Content-Type": "application/x-ndjson"})
    assert answer.status == 201, answer


@pytest.fixture(scope="module", autouse=True)
def stored(server):
    post(server, *({"type": f"t{n % 3}", "payload": {"n": n, "pad": "z" * 100}, "subject": f"s{n % 7}"}
                   for n in range(MANY)))


def listed(server, query=""):
    found, cursor = [], ""
    while True:
        page = server.get(f"/api/v1/events?order=asc&limit=1000{query}{cursor}").json
        found += page["events"]
        if page["next_cursor"] is None:
            return found
        cursor = "&cursor=" + page["next_cursor"]


def rows(server, query="", **options):
    """The export as NDJSON, one value a line."""
    answer = server.get(f"{PATH}?format=ndjson{query}", **options)
    assert answer.status == 200 and answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.body.decode().splitlines()]


def test_json(server):
    answer = server.get(PATH)
    assert answer.headers["content-type"] == "application/json"
    assert re.fullmatch(r'attachment; filename="events_export_\d{8}_\d{6}\.json"',
                        answer.headers["content-disposition"])
    assert answer.headers["cache-control"] == "private, max-age=300"
    assert answer.json["events"] == listed(server) and answer.json["record_count"] == MANY


def test_ndjson_and_filters(server):
    assert rows(server) == listed(server)
    assert rows(server, "&order=desc") == listed(server)[::-1]
    for query in ("&type=t1", "&subject=s3", "&type=t2&subject=s0", "&type=none", "&status=acknowledged"):
        assert rows(server, query) == listed(server, query), query


def test_csv(server):
    answer = server.get(PATH + "?format=csv")
    assert answer.headers["content-type"].startswith("text/csv")
    table = list(csv.reader(io.StringIO(answer.body.decode(), newline="")))
    assert table[0] == COLUMNS and len(table) == MANY + 1
    for row, one in zip(table[1:], listed(server)):
        got = dict(zip(COLUMNS, row))
        assert json.loads(got.pop("payload")) == one["payload"]
        assert got == {name: one.get(name) or "" for name in COLUMNS if name != "payload"}


def test_csv_of_hostile_cells(server):
    key = server.new_org("export-hostile")
    texts = ['=1+1', "+x", "-x", "@x", "\tx", "\rx", 'a "quoted", b', "two\r\nlines", "plain"]
    post(server, *({"type": "t", "payload": n, "subject": text} for n, text in enumerate(texts)), key=key)
    answer = server.get(PATH + "?format=csv", key=key).body.decode()
    table = list(csv.reader(io.StringIO(answer, newline="")))
    assert [row[3] for row in table[1:]] == ["'" + text if text[0] in "=+-@\t\r" else text for text in texts]
    assert answer.count("\r\n") == len(texts) + 1 + 1  # one of them is inside a cell


@pytest.mark.parametrize("coding, decode", [
    ("gzip", gzip.decompress), ("br", brotli.decompress),
    ("zstd", lambda body: zstandard.ZstdDecompressor().decompressobj().decompress(body))])
def test_codings(server, coding, decode):
    answer = server.get(PATH, headers={"Accept-Encoding": coding})
    assert answer.headers["content-encoding"] == coding
    assert json.loads(decode(answer.body))["record_count"] == MANY


def test_tags(server):
    many, few = server.get(PATH), server.get(PATH + "?type=none")
    assert many.headers["etag"].startswith('W/"') and few.headers["etag"].startswith('"')
    assert "content-length" in few.headers and "content-length" not in many.headers
    for path, answer in ((PATH, many), (PATH + "?type=none", few)):
        again = server.get(path, headers={"If-None-Match": answer.headers["etag"]})
        assert again.status == 304 and again.body == b""
    assert server.get(PATH, headers={"If-None-Match": few.headers["etag"]}).status == 200
    assert server.get(PATH + "?format=csv", headers={"If-None-Match": many.headers["etag"]}).status == 200


def test_empty(server):
    key = server.new_org("export-empty")
    assert server.get(PATH, key=key).json == {"events": [], "record_count": 0}
    assert rows(server, key=key) == []
    assert server.get(PATH + "?format=csv", key=key).body.decode() == ",".join(COLUMNS) + "\r\n"


def test_another_org_and_scopes(server):
    key = server.new_org("export-other")
    post(server, {"type": "theirs", "payload": 1}, key=key)
    assert [one["type"] for one in rows(server, key=key)] == ["theirs"]
    assert "theirs" not in {one["type"] for one in rows(server)}
    writer = server.post("/api/keys", {"scopes": ["write"]}).json["api_key"]
    assert server.get(PATH, key=writer).status == 403


def test_refusals(server):
    for query in ("?format=xml", "?start=soon", "?status=lost", "?order=up"):
        assert server.get(PATH + query).status == 400, query


def test_head(server):
    answer = server.request("HEAD", PATH)
    assert answer.status == 200 and answer.body == b"" and answer.headers["etag"].startswith("W/")


def test_what_comes_meanwhile_is_not_in_it(server):
    """The connection reads the first bytes, then others post; the export ends where it began."""
    connection = server.connect()
    connection.request("GET", PATH + "?format=ndjson", headers={"X-API-Key": server.key})
    answer = connection.getresponse()
    begin = answer.read(1000)
    post(server, {"type": "late", "payload": 1})
    whole = (begin + answer.read()).decode()
    connection.close()
    assert whole.count("\n") == MANY and "late" not in whole
    assert rows(server)[-1]["type"] == "late"
