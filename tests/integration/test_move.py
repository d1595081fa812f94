"""Promise: three lines of settings move a server that is in use from the embedded engines to PostgreSQL, NATS and Redis,
by the commands that docs/operations.md shows: everything that was acknowledged is there once, whatever was half applied,
and clients go on as if nothing had happened."""
import json
import os
import pty
import re
import signal
import subprocess

import pytest

import redis_servers
from black_box import drained, event, events, post, until
from conftest import BINARY, ROOT
from test_telemetry import Plant, letters, ms

pytestmark = [pytest.mark.sqlite_alone, pytest.mark.local_journal_alone]  # it brings the three servers
NDJSON = {"Content-Type": "application/x-ndjson"}
COUNT = 120_000
ENGINES = ("DATABASE_URL", "NATS_URL", "REDIS_URL")


@pytest.fixture
def redis(tmp_path):
    one = redis_servers.Redis(tmp_path)
    yield one
    one.kill()


class Move:
    """A server whose engines stand in three lines of its weir.conf."""

    def __init__(self, weir, database, nats, redis):
        self.server = weir(start=False)
        self.folder = self.server.data_dir.parent
        self.conf = self.folder / "weir.conf"
        self.conf.write_text("".join(f"{name}=\n" for name in ENGINES))
        self.database = database
        self.urls = {"postgresql://weir@db.example/weir": database.url(database.name),
                     "nats://mq.example:4222": nats.url, "redis://cache.example:6379/0": f"redis://127.0.0.1:{redis.port}/0"}
        self.server.start()

    def sql(self, text):
        return self.database.sql(text, self.database.name)

    def set(self, **engines):
        self.conf.write_text("".join(f"{name}={engines.get(name, '')}\n" for name in ENGINES))

    def document(self):
        """The commands of the guide, with this machine's places in theirs."""
        text = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
        commands = re.search(r"^```sh\n(# move\n.*?)^```$", text, re.M | re.S).group(1)
        places = {"/var/lib/weir": self.server.data_dir, "/etc/weir/weir.conf": self.conf, "/backup/": f"{self.folder}/backup-",
                  **self.urls}
        for there, here in places.items():
            assert there in commands, there
            commands = commands.replace(there, str(here))
        return commands

    def run_document(self):
        """On a terminal; gives what it shows. The server is stopped and started by the test."""
        programs = self.folder / "programs"
        programs.mkdir()
        (programs / "weir").symlink_to(BINARY)
        shell = ('sudo() { if [ "$1" = -u ]; then shift 2; fi; "$@"; }\n'
                 'systemctl() { test "$2" = weir; }\n' + self.document())
        ours, theirs = pty.openpty()
        with subprocess.Popen(["bash", "-euc", shell], cwd="/", stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL,
                              env={"PATH": f"{programs}:{os.environ['PATH']}"}) as one:
            os.close(theirs)
            shown = b""
            while part := read_some(ours):
                shown += part
            assert one.wait() == 0, shown
        os.close(ours)
        return shown.decode()


def read_some(terminal):
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other end is closed
        return b""


@pytest.fixture
def move(weir, database, nats, redis):
    return Move(weir, database, nats, redis)


def lines():
    return "".join(json.dumps({"type": "up", "dedup_id": f"u{n}", "payload": n}) + "\n" for n in range(COUNT))


def slices_done(server):
    return server.number_in_store("SELECT coalesce(max(slices_done), 0) FROM uploads WHERE state = 1")


def half_an_upload(server):
    """Accepted, and stopped after some of its slices."""
    body = lines()
    answer = server.post("/api/events/batch", body, headers=NDJSON)
    assert answer.status == 202 and answer.json["accepted"] == COUNT, answer
    until(lambda: slices_done(server) > 0)
    return answer.json["upload_id"], body


def content(server, path):
    """Every page of a list, or the one answer."""
    found = []
    path, _, first = path.partition("&cursor=")
    cursor = first and f"&cursor={first}"
    while cursor is not None:
        answer = server.get(path + cursor)
        assert answer.status == 200, answer
        page = answer.json
        following = page.pop("next_cursor", None)
        found += page["events"] if "events" in page else [page]
        cursor = following and f"&cursor={following}"
    return found


@pytest.mark.seconds(20)
def test_three_lines(move):
    server = move.server
    other = server.new_org("other")
    theirs = server.post("/api/events", event(1), key=other).json["id"]
    plant = Plant(server, "plant")
    assert plant.send([plant.message(n / 7, at=ms(600 - 30 * n)) for n in range(20)]).status in (200, 201)
    assert plant.send(plant.message(1, parameter="nobody")).status in (200, 201, 202)
    kept = [post(server, n, subject=f"s{n % 3}") for n in range(60)]
    drained(server)
    until(lambda: server.number_in_store("SELECT count(*) FROM rollup_dirty") == 0)
    assert server.post("/api/inbox/ack", {"event_ids": kept[:20]}).json["acknowledged"] == 20
    page = server.get("/api/inbox?limit=7&order=asc&type=test.event").json
    asked = ["/api/inbox?limit=1000&order=asc&type=test.event", "/api/v1/events?type=test.event&subject=s2&limit=1000",
             "/api/inbox?status=acknowledged&limit=1000",
             "/api/inbox?limit=7&order=asc&type=test.event&cursor=" + page["next_cursor"],
             f"/api/v1/readings?device_id={plant.device['id']}",
             f"/api/v1/readings?device_id={plant.device['id']}&bucket=1h", "/api/v1/parameters", "/api/v1/devices"]
    before = [content(server, path) for path in asked]
    assert [len(found) for found in before[:4]] == [40, 20, 20, 33]
    assert len(before[4][0]["readings"]) == 20 and before[5][0]["points"]
    dead = letters(server)
    upload, body = half_an_upload(server)
    late = [post(server, n, kind="late") for n in range(1000, 1040)]
    assert server.stop() == 0
    is_half = server.number_in_store("SELECT count(*) FROM uploads WHERE state = 1")
    assert is_half == 1, "the upload was applied before the stop: raise COUNT"

    shown = move.run_document()
    assert re.search(r"applying the journal \[[#.]+\] +\d+%", shown) and re.search(r"migrating \[#+\.*\] +\d+%", shown), shown
    assert "the same on both sides" in shown
    server.start()
    assert sorted(server.get("/health/ready", key=None).json["parts"]) == ["journal", "redis", "store"]
    drained(server)
    for path, there in zip(asked, before):
        assert content(server, path) == there, path
    assert letters(server) == dead and len(dead) == 1
    assert [one["id"] for one in events(server, "&type=late")] == late
    assert [one["id"] for one in events(server, key=other)] == [theirs]
    got = server.get(f"/api/v1/uploads/{upload}").json
    assert got["state"] == "processed" and got["counts"]["inserted"] == COUNT
    assert move.sql("SELECT count(*), count(DISTINCT id), count(DISTINCT dedup_id) FROM events WHERE type = 'up'"
                    ) == f"{COUNT}|{COUNT}|{COUNT}"
    assert server.get(f"/api/v1/uploads/{upload}/raw").body.decode() == body  # where it lay before
    # Clients go on: the same keys, the same ids, new events, readings and acknowledgements.
    answer = server.post("/api/events?wait=stored", event(5, subject="s2"))
    assert answer.status == 200 and answer.json["id"] == kept[5] and answer.json["duplicate"]
    answer = server.post("/api/events", event(2000, kind="new"))
    assert answer.status == 202 and answer.json["durability"] == "jetstream"
    server.wait_applied(answer.json["position"])
    assert [one["id"] for one in events(server, "&type=new")] == [answer.json["id"]]
    assert server.post("/api/inbox/ack", {"event_ids": kept[20:30]}).json["acknowledged"] == 10
    assert len(events(server, "&type=test.event&status=acknowledged")) == 30
    assert plant.send(plant.message(99, at=ms())).status in (200, 201)
    assert len(plant.readings()) == 21
    # What is erased goes from the file of before, too.
    assert (server.data_dir / "uploads" / f"{upload}.up").exists()
    assert server.post("/api/v1/erase", {"event_id": events(server, "&type=up&limit=1")[0]["id"]}).json["raw_uploads"] == 1
    server.stop()
    server.start()
    until(lambda: not (server.data_dir / "uploads" / f"{upload}.up").exists())


def refused(server, *parts):
    done = server.command("serve", check=False)
    assert done.returncode == 1 and done.stderr.strip().count("\n") == 0, done.stderr
    for part in parts:
        assert part in done.stderr, done.stderr


def test_what_lies_in_files_is_not_left_behind(move, nats):
    """Without the command that applies it first, the move of the journal is refused."""
    server = move.server
    upload, _ = half_an_upload(server)
    server.stop()
    move.set(NATS_URL=nats.url)
    refused(server, "not applied; start once without NATS_URL")
    database, = (here for there, here in move.urls.items() if there.startswith("postgresql"))
    server.settings["APPLY_PAUSED"] = "1"
    move.set()
    server.command("migrate-store", "sqlite:", database)
    del server.settings["APPLY_PAUSED"]
    move.set(DATABASE_URL=database, NATS_URL=nats.url)
    refused(server, "not applied; start once without NATS_URL")
    move.set(DATABASE_URL=database)
    server.start()
    until(lambda: server.get(f"/api/v1/uploads/{upload}").json["state"] == "processed")
    drained(server)
    server.stop()
    move.set(DATABASE_URL=database, NATS_URL=nats.url)
    server.start()
    assert move.sql("SELECT count(*), count(DISTINCT id) FROM events WHERE type = 'up'") == f"{COUNT}|{COUNT}"


def test_an_upload_alone_is_not_left_behind(move, nats):
    """Every frame is applied, its end record too, and only some of its slices."""
    server = move.server
    upload, _ = half_an_upload(server)
    server.stop(signal.SIGKILL)
    assert server.number_in_store("SELECT count(*) FROM uploads WHERE state = 1") == 1
    database, = (here for there, here in move.urls.items() if there.startswith("postgresql"))
    move.set(DATABASE_URL=database, NATS_URL=nats.url)  # the lines before the command: it is the same
    server.command("migrate-store", "sqlite:", database)
    server.start()
    assert server.get(f"/api/v1/uploads/{upload}").json["counts"]["inserted"] == COUNT
    drained(server)
