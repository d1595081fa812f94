"""Promise: a wall clock that is stepped an hour to and fro changes times and nothing else: ids, order, cursors,
rate windows and key expiry stay right (R9)."""
import datetime
import pathlib
import time

import pytest

from black_box import drained, event, events, post, until

pytestmark = pytest.mark.released
LIBRARY = next(pathlib.Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
HOUR = 3600


class Clock:
    """The server's wall clock: ours plus an offset; the monotonic clock is left alone."""

    def __init__(self, path):
        self.path = path
        self.step(0)

    def step(self, seconds):
        self.offset = seconds
        new = self.path.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.rename(self.path)

    def environment(self):
        assert LIBRARY is not None, "libfaketime is missing (tools/setup test)"
        return {"LD_PRELOAD": str(LIBRARY), "FAKETIME_TIMESTAMP_FILE": str(self.path), "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1"}

    def now(self):
        return time.time() + self.offset


@pytest.fixture
def clock(tmp_path):
    return Clock(tmp_path / "clock")


@pytest.fixture
def stepped(weir, clock):
    return weir(**clock.environment())


def seconds_of(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def text_of(seconds):
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_the_clock_is_really_stepped(stepped, clock):
    for offset in (HOUR, -HOUR, 0):
        clock.step(offset)
        identity = post(stepped, offset)
        drained(stepped)
        created = stepped.get(f"/api/v1/events/{identity}").json["created_at"]
        assert abs(seconds_of(created) - clock.now()) < 30


def test_ids_order_and_cursors(stepped, clock):
    ids, pages, cursor = [], [], ""
    for step in range(12):
        clock.step((HOUR, -HOUR, 0)[step % 3])
        ids += [post(stepped, f"{step}-{number}") for number in range(10)]
        drained(stepped)
        page = stepped.get(f"/api/v1/events?limit=7&order=asc{cursor}").json
        pages += [one["id"] for one in page["events"]]
        cursor = f"&cursor={page['next_cursor']}"
    while True:
        page = stepped.get(f"/api/v1/events?limit=7&order=asc{cursor}").json
        pages += [one["id"] for one in page["events"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert len(set(ids)) == len(ids)
    assert pages == ids
    assert [one["id"] for one in events(stepped)] == ids
    newest_first = stepped.get("/api/inbox?limit=1000").json["events"]
    assert [one["id"] for one in newest_first] == ids[::-1]


def test_ranges_follow_the_time_that_was_shown(stepped, clock):
    groups = {}
    for offset in (0, HOUR, -HOUR, 0, HOUR):
        clock.step(offset)
        groups.setdefault(offset, []).extend(post(stepped, f"{offset}-{time.monotonic_ns()}") for _ in range(5))
    drained(stepped)
    middle = time.time()
    for offset, ids in groups.items():
        window = f"&start={text_of(middle + offset - 1500)}&end={text_of(middle + offset + 1500)}"
        assert sorted(one["id"] for one in events(stepped, window)) == sorted(ids)


def test_the_same_dedup_id_stays_the_same_event(stepped, clock):
    first = post(stepped, 1)
    for offset in (HOUR, -HOUR):
        clock.step(offset)
        assert post(stepped, 1) == first
    drained(stepped)
    assert len(events(stepped)) == 1


def test_rate_windows_do_not_follow_the_wall_clock(stepped, clock):
    key = stepped.new_org("small", "free")  # 100 a minute
    answers = [stepped.get("/api/inbox", key=key).status for _ in range(110)]
    assert answers[:100] == [200] * 100 and answers[-1] == 429
    for offset in (HOUR, -HOUR, 0):
        clock.step(offset)
        answer = stepped.get("/api/inbox", key=key)
        assert answer.status == 429 and 1 <= int(answer.headers["retry-after"]) < 120
    # And an org that has quota keeps it when the clock goes back.
    fresh = stepped.new_org("fresh", "free")
    for offset in (0, -HOUR, HOUR):
        clock.step(offset)
        assert stepped.get("/api/inbox", key=fresh).status == 200


def test_a_key_expires_by_the_wall_clock(stepped, clock):
    answer = stepped.post("/api/keys", {"scopes": ["read"], "expires_at": text_of(clock.now() + 600)})
    assert answer.status == 201, answer
    key = answer.json["api_key"]
    assert stepped.get("/api/inbox", key=key).status == 200
    clock.step(HOUR)
    assert stepped.get("/api/inbox", key=key).status == 401
    clock.step(-HOUR)
    assert stepped.get("/api/inbox").status == 200


def test_a_restart_in_another_hour(stepped, clock):
    ids = []
    for offset in (HOUR, -HOUR, 0):
        clock.step(offset)
        ids.append(post(stepped, offset))
        assert stepped.stop() == 0
        stepped.start()
    drained(stepped)
    assert [one["id"] for one in events(stepped)] == ids


def test_wait_for_and_open_connections_survive_a_step(stepped, clock):
    connection = stepped.connect()
    for offset in (HOUR, -HOUR, 0):
        clock.step(offset)
        connection.request("GET", "/health/live")
        assert connection.getresponse().read()
        position = stepped.post("/api/events", event(offset)).json["position"]
        assert stepped.get(f"/api/v1/events?limit=1&wait_for={position}").status == 200
    connection.close()
    until(lambda: stepped.get("/health/ready", key=None).status == 200)
