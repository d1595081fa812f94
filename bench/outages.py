"""R4: each engine is stopped and started again under load, and a node is killed: how soon all is back, in seconds.

"first" is the first answered request, "drained" is when an event posted after the return is stored and the queue
is as short as the load alone keeps it; both count from when the engine itself takes connections again. For a node
that is killed: from its death until the other has applied an event of each of the lanes that it had.
"""
import argparse
import concurrent.futures
import contextlib
import signal
import sqlite3
import sys
import time

import engines
import measure
from engines import nats_servers

BACK_SECONDS = 10
TAKEN_SECONDS = 8  # what a killed node had
PATIENCE_SECONDS = 60  # a figure above this one is not waited for
RATE = 500
SUBJECTS = 200  # on as good as all of the 64 lanes
CALM = RATE // 2  # records in the queue that half a second of the load is


def wait_until(check):
    """When it was true, or patience was over."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not check() and time.monotonic() < end:
        time.sleep(.01)
    return time.monotonic()


def probe(server, query="", subject=None):
    """Status of an event that never was before."""
    event = {"type": "probe", "dedup_id": f"{time.monotonic_ns()}-{subject}", "subject": subject or "s", "payload": {}}
    return engines.post(server, event, query, PATIENCE_SECONDS)


class Outage:
    """A load against a server, and what became of it."""

    def __init__(self, bench, server, seconds):
        self.server = server
        self.ids = bench.place("ids")
        self.load = measure.Background(measure.load, server.url, server.key, core=None, check=False, connections=16,
                                       rate=RATE, seconds=seconds, event_bytes=160, ids=self.ids)

    def back(self):
        """Seconds until the first answer, and until what is posted then is stored and the queue is short."""
        begun = time.monotonic()
        first = wait_until(lambda: probe(self.server) == 202)
        drained = wait_until(lambda: probe(self.server, "?wait=stored") == 201 and self.server.backlog() <= CALM)
        return first - begun, drained - begun

    def end(self):
        got = self.load.result()
        self.server.wait_drained()
        counts = engines.counts(measure.audit(self.server, self.ids))
        return {"acknowledged": counts["acknowledged"], "lost": counts["lost"], "twice": counts["twice"],
                "refused": got["errors"] + got["broken"], "rss_mb": measure.memory_mb(self.server.pid)}


class Locked:
    """SQLite with another's write lock on it."""

    def __init__(self, server):
        self.path = server.data_dir / "weir.db"
        self.lock = None

    def stop(self):
        self.lock = sqlite3.connect(self.path, timeout=30, isolation_level=None)
        self.lock.execute("BEGIN EXCLUSIVE")

    def start(self):
        self.lock.rollback()
        self.lock.close()


def engine(bench, name, server, one):
    """`one` is stopped for a while under load."""
    outage = Outage(bench, server, bench.seconds(25, 16))
    time.sleep(3)
    one.stop()
    time.sleep(bench.seconds(8, 4))
    one.start()
    first, drained = outage.back()
    result = {"name": name, "first_s": first, "drained_s": drained, **outage.end()}
    bench.discard(server)
    return result


def killed(bench, database, cluster):
    """A node dies; the other takes its lanes."""
    pair = engines.Pair(bench, database, cluster)
    time.sleep(12)  # they have shared the lanes evenly
    outage = Outage(bench, pair.b, bench.seconds(25, 16))
    time.sleep(3)
    pair.a.process.send_signal(signal.SIGKILL)
    begun = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(SUBJECTS) as pool:
        taken = list(pool.map(lambda number: wait_until(
            lambda: probe(pair.b, "?wait=stored", f"s{number}") == 201) - begun, range(SUBJECTS)))
    result = {"name": "node killed", "within_s": TAKEN_SECONDS, "first_s": min(taken), "drained_s": max(taken)}
    pair.a.process.wait()
    pair.a.start()
    result.update(outage.end())
    pair.close()
    return result


def cases(bench):
    with contextlib.ExitStack() as stack:
        server = bench.server()
        yield engine(bench, "SQLite locked", server, Locked(server))
        database = stack.enter_context(contextlib.closing(engines.synced_postgres()))
        yield engine(bench, "PostgreSQL", bench.server(DATABASE_URL=database.url(database.new_database())), database)
        redis = stack.enter_context(contextlib.closing(engines.Redis()))
        yield engine(bench, "Redis", bench.server(REDIS_URL=redis.url), redis)
        nats = stack.enter_context(contextlib.closing(nats_servers.Nats()))
        nats.stop = nats.kill
        yield engine(bench, "NATS killed", bench.server(NATS_URL=nats.url), nats)
        cluster = stack.enter_context(contextlib.closing(nats_servers.Cluster()))
        yield killed(bench, database, cluster)


def line(one):
    return (f"{one['name']}: first answer after {one['first_s']:.2f} s, drained after {one['drained_s']:.1f} s, "
            f"{one['acknowledged']:,} acknowledged, {one['lost']} lost, {one['twice']} twice, {one['refused']:,} "
            f"refused, peak RSS {one['rss_mb']:.0f} MB")


def held(one):
    return one["lost"] == one["twice"] == 0 and one["drained_s"] <= one.get("within_s", BACK_SECONDS)


def run(quick):
    """Lines, and whether all of it held."""
    bench = measure.Bench(quick, None)
    lines, good = [], True
    try:
        for one in cases(bench):
            lines.append(line(one))
            good &= held(one)
            measure.say("     R4: " + lines[-1])
    finally:
        bench.close()
    return "; ".join(lines), good


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    sys.exit(0 if run(parser.parse_args().quick)[1] else 1)
