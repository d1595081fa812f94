"""Rounds of kill -9 (R1), for the test and for bench/crash.

A round: a load of single events at full speed (ids written as they are acknowledged) and a client that posts
batches and uploads; after a random time, also while the server is still starting, kill -9; start again; every
acknowledged id is in the store exactly once, and of each acknowledged batch every element is.
A data directory serves several rounds, so that recovery meets the remains of earlier ones.
"""
import http.client
import json
import os
import pathlib
import random
import tempfile
import threading
import time

from black_box import audit, drained, events, start_load
from conftest import Weir

ROUNDS_PER_DIRECTORY = 10


class BatchClient(threading.Thread):
    """Posts NDJSON batches of one size after the other until its connection breaks; notes which were
    answered 202. `size` elements of about 160 bytes: above 1,600 the batch is an upload."""

    def __init__(self, server, name, size):
        super().__init__(daemon=True)
        self.port, self.key, self.name, self.size = server.port, server.key, name, size
        self.acknowledged = []
        self.error = None

    def body(self, number):
        lines = [json.dumps({"type": "crash.batch", "dedup_id": f"{self.name}-{number}-{index}",
                             "payload": {"pad": "x" * 60, "index": index}}) for index in range(self.size)]
        return "\n".join(lines).encode()

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        number = 0
        while True:
            try:
                connection.request("POST", "/api/events/batch", self.body(number),
                                   {"X-API-Key": self.key, "Content-Type": "application/x-ndjson"})
                answer = connection.getresponse()
                body = answer.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                return
            if answer.status != 202 or json.loads(body)["accepted"] != self.size:
                self.error = (answer.status, body[:500])
                return
            self.acknowledged.append(number)
            number += 1


def end_killed_load(load):
    """The kill may come before the load has connected: then nothing was acknowledged to it."""
    out, err = load.communicate(timeout=120)
    assert out.strip() or "not reachable" in err, err


class Rounds:
    """Rounds on one data directory after the other; `total` counts acknowledged ids, and elements."""

    def __init__(self, seed, folder):
        self.random = random.Random(seed)
        self.folder = pathlib.Path(folder)
        self.count = 0
        self.single_total = 0
        self.element_total = 0
        self.server = None
        self.expected = {}

    def begin_directory(self):
        self.end_directory()
        place = self.folder / f"crash{self.count}"
        place.mkdir()
        # A small segment, so that rounds cross segments; a small window, so that segments go.
        self.server = Weir(place / "data", {"JOURNAL_SEGMENT_MB": 1, "JOURNAL_REPLAY_SECONDS": 0,
                                            "DRAIN_TIMEOUT": 5})
        self.ids = place / "ids.txt"
        self.ids.touch()
        self.expected = {}

    def end_directory(self):
        if self.server is None:
            return
        self.single_total += audit(self.server, self.ids)
        self.check_batches()
        self.element_total += len(self.expected)
        assert self.server.stop() == 0
        self.server = None

    def kill_while_starting(self):
        """Ends a start somewhere in its first moments; nothing may come of it."""
        self.server.start(wait=False)
        time.sleep(self.random.uniform(0, 0.15))
        self.server.kill()

    def round(self):
        if self.count % ROUNDS_PER_DIRECTORY == 0:
            self.begin_directory()
        self.count += 1
        options = {"connections": self.random.choice([1, 16, 64]), "seconds": 30, "ids": self.ids}
        load = start_load(self.server, **options)
        clients = [BatchClient(self.server, f"r{self.count}-{size}", size) for size in (50, 3000)]
        for client in clients:
            client.start()
        time.sleep(self.random.uniform(0.02, 0.7))  # the random instant
        self.server.kill()
        end_killed_load(load)
        for client in clients:
            client.join()
            assert client.error is None, client.error
            for number in client.acknowledged:
                self.expected.update({f"{client.name}-{number}-{index}": 0 for index in range(client.size)})
        while self.random.random() < 0.3:
            self.kill_while_starting()
        self.server.start()
        if self.count % 3 == 0:  # in between the backlog of one round meets the load of the next
            audit(self.server, self.ids)

    def check_batches(self):
        """Each element of an acknowledged batch once; of the others once or never, but whole batches."""
        drained(self.server)
        seen = {}
        for one in events(self.server, "&type=crash.batch"):
            seen[one["dedup_id"]] = seen.get(one["dedup_id"], 0) + 1
        lost = [name for name in self.expected if name not in seen]
        twice = [name for name, count in seen.items() if count > 1]
        assert not lost and not twice, f"lost {len(lost)} ({lost[:3]}), twice {len(twice)} ({twice[:3]})"
        batches = {}
        for name in seen:
            batch, _, _ = name.rpartition("-")
            batches[batch] = batches.get(batch, 0) + 1
        for batch, count in batches.items():
            size = int(batch.split("-")[1])
            assert count == size, f"batch {batch} has {count} of {size} elements"


def run(rounds, seed, on_round=None):
    """Gives the numbers of acknowledged single events and of acknowledged batch elements."""
    with tempfile.TemporaryDirectory(prefix="weir-crash-", dir=os.environ.get("WEIR_BENCH_DIR")) as folder:
        all_rounds = Rounds(seed, folder)
        try:
            for number in range(rounds):
                all_rounds.round()
                if on_round is not None:
                    on_round(number + 1, all_rounds)
            all_rounds.end_directory()
        finally:
            if all_rounds.server is not None:
                all_rounds.server.kill()
        return all_rounds.single_total, all_rounds.element_total
