"""Promise: on PostgreSQL any number of appliers share the journal, a local one or a stream of NATS that nodes share,
and the number may change at every start: whenever a server is killed, each acknowledged record is in the store once,
each subject in its order; a store goes to one cursor (SQLite) and back to sixty-four without loss or repetition
(I1, I11)."""
import json
import random
import time

import pytest

from black_box import audit, drained, events, metric, start_load, until
from crash_rounds import BatchClient, end_killed_load

pytestmark = pytest.mark.sqlite_alone
SUBJECTS = 7


def sql(database, text):
    return database.sql(text, database.name)


def settings(database, pool):
    return database.store_settings(database.name, 16, WORKER_POOL_SIZE=str(pool))


def seen_once(server, expected, query=""):
    """Each name in `expected` once, and nothing else twice."""
    names = [one["dedup_id"] for one in events(server, query)]
    assert len(names) == len(set(names)), "repeated"
    lost = set(expected) - set(names)
    assert not lost, f"lost {len(lost)}: {sorted(lost)[:3]}"


def post_batch(server, first, count):
    """Elements of several subjects; gives their names."""
    lines = [json.dumps({"type": "lane", "dedup_id": f"n{n}", "subject": f"s{n % SUBJECTS}",
                         "payload": {"n": n}}) for n in range(first, first + count)]
    answer = server.request("POST", "/api/events/batch", "\n".join(lines).encode(),
                            {"Content-Type": "application/x-ndjson"})
    assert answer.status == 202, answer
    return {f"n{n}" for n in range(first, first + count)}


def in_order(server):
    """Of each subject, later ones behind earlier ones."""
    last = {}
    for one in events(server, "&type=lane"):
        number = one["payload"]["n"]
        assert last.get(one["subject"], -1) < number, one
        last[one["subject"]] = number


@pytest.mark.seconds(25)
def test_any_pool_size_and_kill_9_lose_and_repeat_nothing(weir, database, tmp_path):
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    ids = tmp_path / "ids"
    ids.touch()
    expected, number = set(), 0
    pools = [4, 1, 7, 2, 4]
    server = weir(**settings(database, pools[0]))
    for turn, pool in enumerate(pools[1:] + [4]):
        until(lambda: sql(database, "SELECT count(DISTINCT holder) FROM cursors WHERE holder <> 0") ==
              str(pools[turn]))
        load = start_load(server, connections=16, seconds=60, ids=ids)
        clients = [BatchClient(server, f"r{turn}-{size}", size) for size in (50, 3000)]
        for client in clients:
            client.start()
        end = time.monotonic() + dice.uniform(0.3, 1.2)
        while time.monotonic() < end:
            expected |= post_batch(server, number, 20)
            number += 20
        server.kill()
        end_killed_load(load)
        for client in clients:
            client.join()
            assert client.error is None, client.error
            expected.update(f"{client.name}-{n}-{index}" for n in client.acknowledged
                            for index in range(client.size))
        server.settings["WORKER_POOL_SIZE"] = str(pool)
        server.start()
    drained(server)
    audit(server, ids)
    seen_once(server, (name for name in expected if name.startswith("r")), "&type=crash.batch")
    seen_once(server, (name for name in expected if name.startswith("n")), "&type=lane")
    in_order(server)
    assert number > 0 and sql(database, "SELECT count(*) FROM cursors") == "64"
    assert server.stop() == 0
    assert sql(database, "SELECT count(*) FROM cursors WHERE holder <> 0") == "0"
    assert sql(database, "SELECT count(DISTINCT position) FROM cursors") == "1"  # all of them at the end


class Node:
    """One of several on a stream, and what was acknowledged there: names that a loader wrote, and those of batches."""

    def __init__(self, weir, database, nats, number, ids):
        self.server = weir(start=False, **settings(database, 1))
        self.server.settings.update(NATS_URL=nats.url, NATS_STREAM="lanes")
        self.number, self.ids, self.expected = number, ids, set()
        self.ids.touch()

    def start(self, pool, key=None):
        self.server.settings["WORKER_POOL_SIZE"] = str(pool)
        self.server.key = self.server.key or key
        self.server.start()

    def begin(self, turn):
        self.load = start_load(self.server, connections=8, seconds=60, rate=500, ids=self.ids)
        self.clients = [BatchClient(self.server, f"r{self.number}-{turn}-{size}", size) for size in (50, 3000)]
        for client in self.clients:
            client.start()

    def end(self):
        """It was killed."""
        end_killed_load(self.load)
        for client in self.clients:
            client.join()
            assert client.error is None, client.error
            self.expected.update(f"{client.name}-{n}-{index}" for n in client.acknowledged
                                 for index in range(client.size))


@pytest.mark.seconds(60)  # leases of the killed have to end, four times
@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.long), 2])
def test_any_pool_size_of_nodes_on_one_stream(weir, database, nats, tmp_path, count):
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    expected, number = set(), 0
    pools = [4, 1, 7, 2]
    nodes = [Node(weir, database, nats, i, tmp_path / f"ids{i}") for i in range(count)]
    sizes = [0] * count
    held = "SELECT count(*) FROM cursors c JOIN appliers a ON a.journal = c.journal AND a.holder = c.holder"
    for turn in range(len(pools)):
        for node in nodes:
            if node.server.process is None:
                sizes[node.number] = pools[(turn + node.number) % len(pools)]
                node.start(sizes[node.number], nodes[0].server.key)
        # those that were killed are forgotten, and their lanes taken over
        until(lambda: sql(database, "SELECT count(*) FROM appliers") == str(sum(sizes)), 20)
        until(lambda: sql(database, held) == "64", 20)
        for node in nodes:
            node.begin(turn)
        end = time.monotonic() + dice.uniform(0.3, 1.2)
        while time.monotonic() < end:
            expected |= post_batch(nodes[0].server, number, 20)
            number += 20
        for node in nodes:
            node.server.kill()
        for node in nodes:
            node.end()
    for node in nodes:
        node.start(dice.choice(pools), nodes[0].server.key)
    for node in nodes:
        until(lambda: metric(node.server, "event_queue_size") == 0, 180)  # of four turns
        audit(nodes[0].server, node.ids)
        expected |= node.expected
    seen_once(nodes[0].server, (name for name in expected if name.startswith("r")), "&type=crash.batch")
    seen_once(nodes[0].server, (name for name in expected if name.startswith("n")), "&type=lane")
    in_order(nodes[0].server)
    assert number > 0 and sql(database, "SELECT count(*) FROM dead_letters") == "0"
    for node in nodes:
        assert node.server.stop() == 0
    assert sql(database, "SELECT count(*) FROM cursors WHERE holder <> 0") == "0"
    assert sql(database, "SELECT count(DISTINCT position) FROM cursors") == "1"  # all of them at the end


def test_one_cursor_becomes_64_and_one_again(weir, database, tmp_path):
    server = weir(JOURNAL_REPLAY_SECONDS=0)
    path = server.data_dir / "weir.db"
    other = f"sqlite:{tmp_path}/other.db"
    expected = post_batch(server, 0, 40)
    drained(server)
    server.kill()
    server.command("migrate-store", f"sqlite:{path}", database.url(database.name))
    server.settings.update(settings(database, 4))
    server.start()
    expected |= post_batch(server, 40, 40)
    drained(server)
    assert metric(server, "dedup_duplicates_total") == 0
    assert sql(database, "SELECT count(*) FROM cursors") == "64"
    server.kill()  # somewhere before the cursors of idle lanes have followed
    server.command("migrate-store", database.url(database.name), other)
    server.settings.update({"DATABASE_URL": other})
    server.start()
    expected |= post_batch(server, 80, 40)
    drained(server)
    assert metric(server, "dedup_duplicates_total") == 0  # nothing was applied again
    seen_once(server, expected)
    in_order(server)
    assert server.stop() == 0


def test_a_new_start_waits_for_no_lease(weir, database):
    server = weir(**settings(database, 4))
    expected = post_batch(server, 0, 40)
    drained(server)
    server.kill()
    server.settings["APPLY_PAUSED"] = "1"
    server.start()
    expected |= post_batch(server, 40, 40)
    server.kill()
    database.sql("UPDATE cursors SET holder = 99, until_ms = 9000000000000000", database.name)
    server.settings.pop("APPLY_PAUSED")
    server.start()
    drained(server)
    seen_once(server, expected)
    assert server.stop() == 0
