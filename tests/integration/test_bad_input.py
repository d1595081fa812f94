"""Promise: bad input gets the error that the API documents, nothing of it is taken, and nothing else is lost.

Each sentence of the contract's "bad input" has its test; what the machine does wrong (full queue, full disk,
locked database, damaged journal) stands in test_outages.py and test_recovery.py.
"""
import gzip
import json
import os
import pathlib
import pwd
import shutil
import socket
import sqlite3
import subprocess

import pytest

from black_box import (check_problem, drained, event, events, head, post, problem_of, raw, read_all, status_of,
                       until)
from conftest import BINARY
from test_outages import private_mounts

JSON = {"Content-Type": "application/json"}
NDJSON = {"Content-Type": "application/x-ndjson"}
GOOD = json.dumps(event(1, "good")).encode()


@pytest.fixture(autouse=True)
def nothing_is_lost(request):
    """Around each test that uses `server`: what was acknowledged before stays, and only that is there."""
    if "server" not in request.fixturenames:
        yield
        return
    server = request.getfixturevalue("server")
    name = request.node.name
    before = post(server, f"before {name}", "kept")
    drained(server)
    known = {one["id"] for one in events(server)}
    assert before in known
    yield
    after = post(server, f"after {name}", "kept")
    drained(server)
    assert {one["id"] for one in events(server)} == known | {after}


# --- bodies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [0, 1, 8, 20, len(GOOD) - 1])
def test_truncated_json(server, cut):
    problem = check_problem(server.post("/api/events", GOOD[:cut], headers=JSON), 400, "malformed")
    assert problem["offset"] == cut


def test_json_with_more_behind_it(server):
    problem = check_problem(server.post("/api/events", GOOD + b" x", headers=JSON), 400, "malformed")
    assert problem["offset"] == len(GOOD) + 1


@pytest.mark.parametrize("kind, body", [
    ("application/json", b"[" + GOOD + b"," + GOOD[:-5]),
    ("application/x-ndjson", GOOD + b"\n" + GOOD[:-5]),
    ("application/cloudevents-batch+json",
     b'[{"specversion":"1.0","id":"1","source":"/a","type":"t","data":1},{"specversion":'),
])
def test_a_batch_that_breaks_off_is_refused_whole(server, kind, body):
    problem = check_problem(server.post("/api/events/batch", body, headers={"Content-Type": kind}), 400, "malformed")
    assert problem["offset"] == len(body)


def test_an_upload_that_is_malformed_at_its_end_is_refused_whole(server):
    lines = b"\n".join(json.dumps(event(number, "refused", payload="x" * 100)).encode() for number in range(20000))
    problem = check_problem(server.post("/api/events/batch", lines + b"\n{", headers=NDJSON), 400, "malformed")
    assert problem["offset"] == len(lines) + 2
    until(lambda: not server.bodies()[0])


def test_a_connection_that_ends_within_the_body_leaves_nothing(server):
    text = head(server, Content_Type="application/json", Content_Length=len(GOOD) + 100) + GOOD
    assert raw(server, text, shut=True) == b"" or status_of(raw(server, text, shut=True)) == 400
    chunked = head(server, Content_Type="application/json", Transfer_Encoding="chunked")
    chunked += b"%x\r\n%s\r\n" % (len(GOOD), GOOD)  # the last chunk never comes
    answer = raw(server, chunked, shut=True)
    assert answer == b"" or status_of(answer) == 400


def test_an_oversized_event_names_the_limit(server):
    problem = check_problem(server.post("/api/events", event(1, payload="x" * 262144)), 413, "payload_too_large")
    assert "262144" in json.dumps(problem) or "256" in json.dumps(problem)


def test_an_oversized_event_in_a_batch_is_rejected_alone(server):
    body = json.dumps(event(1, "big", payload="x" * 300000)) + "\n"
    answer = server.post("/api/events/batch", body, headers=NDJSON)
    assert answer.status == 422, answer
    assert answer.json["errors"][0]["code"] == "payload_too_large"


def test_a_body_above_max_payload_size_is_refused_before_it_is_read(weir):
    server = weir(MAX_PAYLOAD_SIZE_MB=1)
    text = head(server, path="/api/events/batch", Content_Type="application/x-ndjson", Content_Length=50 << 20)
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as one:
        one.sendall(text)
        answer = read_all(one)  # not one byte of the body was sent
    assert status_of(answer) == 413 and "1048576" in problem_of(answer)["detail"]
    # A client that sends it all the same still gets to read the answer.
    answer = raw(server, text, *([b" " * 65536] * 64))
    assert status_of(answer) == 413
    assert server.post("/api/events", event(1)).status == 202


@pytest.mark.parametrize("depth, status", [(64, 202), (65, 400), (100000, 400)])
def test_depth(weir, depth, status):
    server = weir()
    body = '{"type":"deep","payload":' + "[" * (depth - 1) + "]" * (depth - 1) + "}"
    answer = server.post("/api/events", body, headers=JSON)
    if status == 202:
        assert answer.status == 202, answer
        drained(server)
        assert len(events(server)) == 1
    else:
        check_problem(answer, 400, "too_deep")
        assert events(server) == []


@pytest.mark.parametrize("bad", [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80"])
def test_bytes_that_are_not_utf_8(server, bad):
    begin = b'{"type":"bad","payload":"ab'
    problem = check_problem(server.post("/api/events", begin + bad + b'"}', headers=JSON), 400, "malformed")
    assert len(begin) <= problem["offset"] <= len(begin) + len(bad)
    check_problem(server.post("/api/events/batch", GOOD + b"\n" + begin + bad + b'"}\n', headers=NDJSON), 400,
                  "malformed")


@pytest.mark.parametrize("key", ["type", "payload", "dedup_id", "subject", "source", "app", "occurred_at"])
def test_a_member_that_stands_twice(server, key):
    whole = event(1, subject="s", source="c", app="a", occurred_at="2024-01-01T00:00:00Z")
    body = json.dumps(whole)[:-1] + f',"{key}":{json.dumps(whole[key])}}}'
    problem = check_problem(server.post("/api/events", body, headers=JSON), 422, "invalid")
    assert problem["errors"][0]["code"] == "duplicate_key"
    assert problem["errors"][0]["pointer"] == f"/{key}"
    # The same key written with an escape is the same key.
    body = json.dumps(whole)[:-1] + f',"\\u{ord(key[0]):04x}{key[1:]}":{json.dumps(whole[key])}}}'
    assert server.post("/api/events", body, headers=JSON).status == 422


@pytest.mark.parametrize("body, pointer, code", [
    ({"payload": {}}, "/type", "missing_field"),
    ({"type": "a"}, "/payload", "missing_field"),
    ({"type": "", "payload": {}}, "/type", "invalid_value"),
    ({"type": "a b", "payload": {}}, "/type", "invalid_value"),
    ({"type": 7, "payload": {}}, "/type", "invalid_type"),
    ({"type": "a" * 256, "payload": {}}, "/type", "too_long"),
    ({"type": "a", "payload": {}, "dedup_id": "x" * 256}, "/dedup_id", "too_long"),
    ({"type": "a", "payload": {}, "occurred_at": "2023-02-29T00:00:00Z"}, "/occurred_at", "invalid_value"),
])
def test_values_that_are_not_permitted(server, body, pointer, code):
    problem = check_problem(server.post("/api/events", body), 422, "invalid")
    assert problem["errors"][0] == {**problem["errors"][0], "pointer": pointer, "code": code}


def test_atomic_batches_take_all_or_nothing(server):
    body = [event(1, "atomic"), {"type": "atomic"}]
    answer = server.post("/api/events/batch?atomic=true", body)
    assert answer.status == 422, answer
    assert answer.json["errors"][0]["pointer"] == "/1/payload"


# --- content types and codings ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["text/html", "application/xml", "multipart/form-data; boundary=x",
                                  "application/x-www-form-urlencoded", "image/png", "nonsense"])
def test_wrong_content_type(server, kind):
    check_problem(server.post("/api/events", GOOD, headers={"Content-Type": kind}), 415, "unsupported")


@pytest.mark.parametrize("coding", ["deflate", "compress", "gzip, br", "nonsense"])
def test_unknown_content_coding(server, coding):
    answer = server.post("/api/events", GOOD, headers={**JSON, "Content-Encoding": coding})
    check_problem(answer, 415, "unsupported")
    assert set(answer.headers["accept-encoding"].replace(" ", "").split(",")) >= {"gzip", "br", "zstd"}


@pytest.mark.parametrize("coding, body", [
    ("gzip", GOOD), ("br", b"\xff" * 20), ("zstd", GOOD), ("gzip", gzip.compress(GOOD, mtime=0)[:-4]),
    ("gzip", gzip.compress(GOOD, mtime=0)[:-8] + b"\0" * 8),
])
def test_a_body_that_is_not_of_its_coding(server, coding, body):
    answer = server.post("/api/events", body, headers={**JSON, "Content-Encoding": coding})
    check_problem(answer, 400, "malformed")


# --- framing: smuggling, stalls -----------------------------------------------------------------------------


INNER = b"POST /api/events HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize("lines, status", [
    ("Content-Length: 5\r\nTransfer-Encoding: chunked", 400),
    ("Transfer-Encoding: chunked\r\nContent-Length: 5", 400),
    ("Content-Length: 5\r\nContent-Length: 6", 400),
    ("Content-Length: 5, 6", 400),
    ("Content-Length: +5", 400),
    ("Content-Length: 0x5", 400),
    ("Content-Length : 5", 400),
    ("Content-Length: 5\r\n folded: 1", 400),
    ("Transfer-Encoding: identity", 501),
    ("Transfer-Encoding: xchunked", 501),
    ("Transfer-Encoding: chunked, chunked", 400),
    ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", (400, 501)),
    ("X: a\nTransfer-Encoding: chunked", 400),
    ("X: a\rTransfer-Encoding: chunked", 400),
    ("X: a\0b\r\nContent-Length: 5", 400),
])
def test_ambiguous_framing_is_refused_and_the_connection_closed(server, lines, status):
    """The body holds a whole second request: it must never be answered."""
    body = b"0\r\n\r\n" + INNER + b"X-API-Key: %s\r\nContent-Length: %d\r\n\r\n%s" % (
        server.key.encode(), len(GOOD), GOOD)
    answer = raw(server, head(server, close=False, Content_Type="application/json")[:-2]
                 + lines.encode() + b"\r\n\r\n" + body)
    permitted = status if isinstance(status, tuple) else (status,)
    assert status_of(answer) in permitted, answer
    assert answer.count(b"HTTP/1.1 ") == 1 and b"connection: close" in answer.lower()


@pytest.mark.parametrize("bytes_, instance", [
    (b"GET /a/b?k=1 HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\n", "/a/b"),
    (b"POST /api/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n", "/api/events"),
    (b"GET /a%zz HTTP/1.1\r\nHost: x\r\n\r\n", "#"),
    (b"nonsense\r\n\r\n", "#"),
])
def test_problems_of_framing_name_their_instance(server, bytes_, instance):
    problem = problem_of(raw(server, bytes_))
    assert problem["status"] in (400, 501)
    assert problem["instance"] == (instance if instance != "#" else "#" + problem["request_id"])


@pytest.mark.parametrize("chunks", [b"5;\rx\r\n", b"-1\r\n", b"5 \r\nhello\r\n0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n",
                                    b"ffffffffffffffff1\r\n", b"5\nhello\n0\n\n", b"2\r\nhello\r\n0\r\n\r\n"])
def test_malformed_chunks(server, chunks):
    text = head(server, close=False, Content_Type="application/json", Transfer_Encoding="chunked")
    answer = raw(server, text + chunks, shut=True)
    assert status_of(answer) == 400 and answer.count(b"HTTP/1.1 ") == 1


def test_a_key_in_the_query_string_is_refused(server):
    for name in ("api_key", "key", "token"):
        answer = server.get(f"/api/inbox?{name}={server.key}", key=None)
        assert answer.status == 401 and "www-authenticate" in answer.headers
    for query in (f"{'a&' * 3000}&token=x", f"&&{'%61=1&' * 1000}%6bey=", "a=1&b=weir_1", "a=weir%5f1"):
        assert server.get(f"/api/inbox?{query}").status == 401, query
    assert server.get(f"/api/inbox?{'a&' * 3000}limit=1").status == 200


def test_a_body_that_stalls_is_answered_408_and_leaves_nothing(weir):
    server = weir(HTTP_RATE_GRACE=0.5)
    for begin in (head(server, Content_Type="application/json", Content_Length=1000) + GOOD,
                  head(server, path="/api/events/batch", Content_Type="application/x-ndjson",
                       Transfer_Encoding="chunked") + b"80000\r\n" + (GOOD + b"\n") * 5000):
        answer = raw(server, begin)
        assert status_of(answer) == 408 and problem_of(answer)["code"] == "request_timeout"
    post(server, 2, "kept")
    drained(server)
    assert [one["type"] for one in events(server)] == ["kept"]
    assert not server.bodies()[0]


# --- starting -----------------------------------------------------------------------------------------------


def refused_start(server):
    """Starts a server that must not come up: its one line."""
    server.start(wait=False)
    status = server.process.wait(30)
    log = server.log
    server.stop()
    assert status == 1, (status, log)
    lines = [line for line in log if line.startswith("weir: ")]
    assert len(lines) == 1, log
    return lines[0]


def test_a_settings_file_with_an_unknown_name(weir, tmp_path):
    (tmp_path / "weir.conf").write_text("# ours\nPORT=0\nJURNAL_MAX_MB=100\n")
    line = refused_start(weir(start=False, data_dir=tmp_path / "data"))
    assert "JURNAL_MAX_MB" in line and "line 3" in line


@pytest.mark.parametrize("name, value", [("PORT", "70000"), ("PORT", "abc"), ("STORE_CACHE_MB", "0"),
                                         ("LOG_LEVEL", "loud"), ("APPLY_PAUSED", "yes")])
def test_a_setting_out_of_its_bounds(weir, name, value):
    line = refused_start(weir(start=False, **{name: value}))
    assert name in line and value in line


def test_a_port_in_use(weir):
    first = weir()
    line = refused_start(weir(start=False, PORT=first.port))
    assert str(first.port) in line and "in use" in line
    post(first, 1)


def test_a_data_directory_in_use_by_another_process(weir):
    first = weir()
    acknowledged = post(first, 1)
    line = refused_start(weir(start=False, data_dir=first.data_dir))
    assert "in use by another" in line and str(first.data_dir) in line
    drained(first)
    assert [one["id"] for one in events(first)] == [acknowledged]


@pytest.mark.sqlite_alone
def test_a_database_in_use_by_another_process(weir):
    """By a server with another data directory: of two, one would let in keys that are dead at the other."""
    first = weir()
    acknowledged = post(first, 1)
    second = weir(start=False, DATABASE_URL=f"sqlite:{first.data_dir}/weir.db")
    line = refused_start(second)
    assert "in use by another" in line and f"{first.data_dir}/weir.db" in line and "DATABASE_URL" in line
    listed = second.command("key", "list", check=False)
    assert listed.returncode == 1 and "in use by another" in listed.stderr
    drained(first)
    assert [one["id"] for one in events(first)] == [acknowledged]
    first.kill()  # its lock goes with it
    second.key = first.key
    second.start()
    assert [one["id"] for one in events(second)] == [acknowledged]


def test_a_data_directory_without_permission(weir, tmp_path):
    """Run as an ordinary user: root has every permission."""
    place = tmp_path / "closed"
    place.mkdir()
    if os.getuid() == 0:
        nobody = pwd.getpwnam("nobody")
        binary = pathlib.Path("/tmp") / f"weir-test-{os.getpid()}"
        shutil.copy(BINARY, binary)
        os.chmod(binary, 0o755)
        place.chmod(0o700)
        done = subprocess.run([str(binary), "serve"], cwd="/", user=nobody.pw_uid, group=nobody.pw_gid,
                              env={"DATA_DIR": str(place / "data"), "PORT": "0"}, capture_output=True, text=True,
                              timeout=30)
        binary.unlink()
        line, status = done.stderr, done.returncode
    else:
        place.chmod(0o500)
        line = refused_start(weir(start=False, data_dir=place / "data"))
        status = 1
        place.chmod(0o700)
    assert status == 1 and "permission denied" in line and str(place) in line
    assert line.count("\n") == 1


def test_a_data_directory_that_is_a_file(weir, tmp_path):
    (tmp_path / "data").write_text("not a directory")
    line = refused_start(weir(start=False, data_dir=tmp_path / "data"))
    assert str(tmp_path / "data") in line


def test_a_database_of_a_newer_program(weir, tmp_path):
    """One line that says which schema it has, and nothing is changed; also for a command that opens it."""
    server = weir(data_dir=tmp_path / "data", DATABASE_URL="", NATS_URL="")
    post(server, 1)
    drained(server)
    server.stop()
    database = server.data_dir / "weir.db"
    subprocess.run(["sqlite3", str(database), "PRAGMA user_version=9999"], check=True)
    before = database.read_bytes()
    line = refused_start(server)
    assert line.count("open store") == 1 and "newer program" in line and "9999" in line, line
    done = server.command("org", "list", check=False)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "9999" in done.stderr, done
    assert database.read_bytes() == before
    with sqlite3.connect(database) as one:
        assert one.execute("SELECT count(*) FROM events").fetchone() == (1,)


def test_a_database_that_may_only_be_read(weir, tmp_path):
    """A file system that is mounted read-only: root has every permission that a file may refuse."""
    server = weir(data_dir=tmp_path / "data", DATABASE_URL="", NATS_URL="")
    post(server, 1)
    drained(server)
    server.stop()
    database = server.data_dir / "weir.db"
    server.settings["DATABASE_URL"] = f"sqlite:{tmp_path}/read/weir.db"
    (tmp_path / "read").mkdir()
    shutil.move(database, tmp_path / "read/weir.db")
    mounts = private_mounts()
    if mounts:
        script = f'mount --bind "{tmp_path}/read" "{tmp_path}/read" && mount -o remount,bind,ro "{tmp_path}/read"'
        server.wrap = [*mounts, "sh", "-c", script + ' && exec "$@"', "sh"]
    else:
        (tmp_path / "read").chmod(0o500)
        (tmp_path / "read/weir.db").chmod(0o400)
    line = refused_start(server)
    (tmp_path / "read").chmod(0o700)
    (tmp_path / "read/weir.db").chmod(0o600)
    assert "permission denied" in line and "weir.db" in line, line
    server.wrap = []
    server.start()
    assert len(events(server)) == 1


@pytest.mark.parametrize("what", ["a text", "another program's database"])
def test_a_database_that_is_not_ours(weir, tmp_path, what):
    data = tmp_path / "data"
    data.mkdir()
    if what == "a text":
        (data / "weir.db").write_text("this is not a database\n" * 100)
    else:
        subprocess.run(["sqlite3", str(data / "weir.db"), "CREATE TABLE t(x); INSERT INTO t VALUES (1)"], check=True)
    before = (data / "weir.db").read_bytes()
    line = refused_start(weir(start=False, data_dir=data, DATABASE_URL=""))
    assert "weir.db" in line and ("another program" in line or what == "a text"), line
    assert (data / "weir.db").read_bytes() == before
