"""Rows with the engines for more than one machine: P18 and the shape of 50 users; and what both, and R4, start."""
import contextlib
import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request

from measure import (ROOT, Background, Server, Watch, audit, free_port, helper, load, median, output, wait_port)

sys.path.insert(0, str(ROOT / "tests/support"))
import nats as nats_servers  # noqa: E402  (found by the line above)
import postgres  # noqa: E402

EVENT_BYTES = 160
NDJSON_FROM = 2  # events a request
YARDSTICK_HEAD_BYTES = 30  # what a server keeps of a message beside its payload: 22 and the subject


def synced_postgres():
    """As one runs it: it syncs."""
    return postgres.Postgres(fsync="on", full_page_writes="on", shared_buffers="256MB", max_wal_size="4GB")


class Redis:
    """Nothing is written to disk: what is there is worth a window."""

    def __init__(self):
        self.port = free_port()
        self.start()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self):
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_port(self.port, self.process)

    def stop(self):
        self.process.terminate()
        self.process.wait(30)

    close = stop


def post(server, event, query="", timeout=150):
    """Status of one event's answer; 0: none came."""
    request = urllib.request.Request(f"{server.url}/api/events{query}", json.dumps(event).encode(),
                                     {"X-API-Key": server.key, "Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


class Pair:
    """Two nodes on one PostgreSQL and one stream."""

    def __init__(self, bench, database, cluster, **settings):
        self.bench = bench
        self.cluster = cluster
        self.stream = f"bench{bench.serial}"
        name = database.new_database()
        both = {"DATABASE_URL": database.url(name), "NATS_URL": cluster.url, "NATS_REPLICAS": 3,
                "NATS_STREAM": self.stream, **settings}
        self.a = bench.server(**both)
        self.b = Server(bench.place("data"), key=self.a.key, **both)
        self.b.start()

    @property
    def nodes(self):
        return [self.a, self.b]

    def load(self, **options):
        """Both at once; one load's numbers of each."""
        running = [Background(load, one.url, one.key, core=None, **options) for one in self.nodes]
        return [one.result() for one in running]

    def close(self):
        for one in self.nodes:
            one.process.kill()  # a stop would first apply what was left
            self.bench.discard(one)
        for name in (self.stream, self.stream + "_uploads"):
            self.cluster.servers[0].delete_stream(name)


# --- P18 -----------------------------------------------------------------------------------------


def request_bytes(cluster, stream, requests):
    """What a request takes of the stream in the mean: several may be in one message, whose subject and header they share."""
    state = cluster.servers[0].stream(stream)["state"]
    return round(state["bytes"] / state["messages"] * state["last_seq"] / requests)


def p18_round(bench, database, cluster, paused, **options):
    pair = Pair(bench, database, cluster, APPLY_PAUSED=int(paused))
    with Watch(pair.a.pid) as one, Watch(pair.b.pid) as two:
        got = pair.load(event_bytes=EVENT_BYTES, **options)
    made = {"requests_per_s": sum(each["requests_per_s"] for each in got),
            "events_per_s": sum(each["events_per_s"] for each in got),
            "p99_ms": max(each["p99_ms"] for each in got),
            "bytes": request_bytes(cluster, pair.stream, sum(each["requests"] for each in got)),
            "rss_mb": max(one.rss_mb, two.rss_mb), "cpu_percent": one.cpu_percent + two.cpu_percent}
    pair.close()
    return made


def p18_publish(cluster, seconds, size, in_flight):
    """Messages a second of the bare publisher: so many that they take about `seconds`."""
    words = [helper("jetstream_pub", "-lnats"), cluster.url.split(",")[0]]
    payload = str(size - YARDSTICK_HEAD_BYTES)
    probe = float(output([*words, "2000", payload, "3", str(in_flight)]))
    return float(output([*words, str(max(2000, int(probe * seconds))), payload, "3", str(in_flight)]))


def p18_intake(bench, database, cluster):
    seconds = bench.seconds(5, 2)
    for batch, connections in ((1, 256), (100, 32), (1000, 8)):
        for paused in (True, False):
            ours, theirs = [], []
            for _ in range(bench.rounds):
                ours.append(p18_round(bench, database, cluster, paused, connections=connections, seconds=seconds,
                                      batch=batch))
                theirs.append(p18_publish(cluster, seconds, ours[-1]["bytes"], 2 * connections))
            mine = median([one["requests_per_s"] for one in ours])
            ratio = mine / median(theirs)
            what = "single events" if batch < NDJSON_FROM else f"NDJSON batches of {batch:,}"
            bench.add("P18", f"{what}, {2 * connections} in flight, applying {'paused' if paused else 'on'}",
                      f"{mine:,.0f} requests/s of {ours[-1]['bytes']:,} bytes", ">= 0.7", ratio >= .7,
                      f"libnats async publish, as many in flight, the same bytes and acks: {median(theirs):,.0f}/s",
                      f"{ratio:.2f}", max(one["rss_mb"] for one in ours), median([one["cpu_percent"] for one in ours]),
                      f"{median([one['events_per_s'] for one in ours]):,.0f} events/s; p99 "
                      f"{median([one['p99_ms'] for one in ours]):.1f} ms; RSS of the larger node, CPU of both")


def counts(line):
    return {name: int(number) for name, number in re.findall(r"(\w[\w ]*?) (\d+)", line)}


def p18_killed(bench, database, cluster):
    """Each node is killed under load and started again; both loads' ids are looked for."""
    pair = Pair(bench, database, cluster)
    ids = [bench.place("ids") for _ in pair.nodes]
    running = [Background(load, one.url, one.key, core=None, check=False, connections=16, rate=500,
                          seconds=bench.seconds(20, 12), event_bytes=EVENT_BYTES, ids=file)
               for one, file in zip(pair.nodes, ids)]
    for one in pair.nodes:
        time.sleep(bench.seconds(4, 3))
        one.process.kill()
        one.process.wait()
        one.start(same_port=True)
    for one in running:
        one.result()
    for one in pair.nodes:
        one.wait_drained()
    lines = [audit(pair.a, file) for file in ids]
    rss = max(Watch(one.pid).peak() for one in pair.nodes)
    pair.close()
    sums = {name: sum(counts(line).get(name, 0) for line in lines) for name in ("acknowledged", "lost", "twice")}
    bench.add("P18", "each node killed once under 2 x 500/s", f"{sums['acknowledged']:,} acknowledged",
              "0 lost, 0 twice", sums["lost"] == 0 and sums["twice"] == 0 and sums["acknowledged"] > 0, rss_mb=rss,
              note=f"lost {sums['lost']}, twice {sums['twice']}")


def p18(bench):
    with contextlib.closing(synced_postgres()) as database, contextlib.closing(nats_servers.Cluster()) as cluster:
        p18_intake(bench, database, cluster)
        p18_killed(bench, database, cluster)


# --- 50 users for a minute ------------------------------------------------------------------------


def buckets(server, family):
    text = server.get("/metrics").decode()
    return [(float(bound), int(count)) for bound, count in
            re.findall(rf'^{family}_bucket{{le="([^"]+)"}} (\d+)', text, re.M)]


def quantile(before, after, share):
    """Milliseconds, within its bucket by straight line, as Prometheus has it."""
    rows = [(bound, count - old[1]) for (bound, count), old in zip(after, before)]
    wanted, low, under = rows[-1][1] * share, 0.0, 0
    for bound, count in rows:
        if count >= wanted:
            part = (wanted - under) / max(count - under, 1)
            return 1000 * (low if bound == float("inf") else low + (bound - low) * part)
        low, under = bound, count
    return 1000 * low


def shape50_line(bench, line, settings):
    """Users that wait a moment between requests leave nothing behind; those that do not ask for all that the machine
    gives, so how long what they leave takes is told, and nothing is to be met."""
    seconds = bench.seconds(60, 15)
    for pause, rate in (("ten requests a second each", 500), ("no pause between requests", None)):
        server = bench.server(**settings())
        load(server.url, server.key, core=None, connections=50, seconds=1, event_bytes=EVENT_BYTES)
        server.wait_drained()
        before = buckets(server, "ingest_queue_latency_seconds")
        with Watch(server.pid) as watch:
            got = load(server.url, server.key, core=None, check=False, connections=50, seconds=seconds,
                       event_bytes=EVENT_BYTES, **({"rate": rate} if rate else {}))
        left = server.backlog()
        drained = server.wait_drained(600)
        after = buckets(server, "ingest_queue_latency_seconds")
        queue = [quantile(before, after, share) for share in (.5, .95, .99)]
        failed = got["errors"] + got["broken"] + got["late"]
        bench.discard(server)
        bench.add("shape50", f"{line}: 50 users for {seconds} s, {pause}",
                  f"API p50 {got['p50_ms']:.2f} p95 {got['p95_ms']:.2f} p99 {got['p99_ms']:.2f} ms; queue p50 "
                  f"{queue[0]:.1f} p95 {queue[1]:.1f} p99 {queue[2]:.1f} ms", "no error, the queue empty at the end",
                  (failed == 0 and left < rate / 10 and drained < 1) if rate else None, rss_mb=watch.rss_mb,
                  cpu_percent=watch.cpu_percent,
                  note=f"{got['requests_per_s']:,.0f}/s, {failed} errors; queue {left:,} when the last answer came, "
                       f"0 after {drained:.2f} s")


def shape50(bench):
    with contextlib.ExitStack() as engines:
        database = engines.enter_context(contextlib.closing(synced_postgres()))
        nats = engines.enter_context(contextlib.closing(nats_servers.Nats()))
        redis = engines.enter_context(contextlib.closing(Redis()))

        def on_postgres():
            return {"DATABASE_URL": database.url(database.new_database())}

        shape50_line(bench, "SQLite, local journal", dict)
        shape50_line(bench, "PostgreSQL, local journal", on_postgres)
        shape50_line(bench, "PostgreSQL, JetStream, Redis",
                     lambda: {**on_postgres(), "NATS_URL": nats.url, "NATS_STREAM": f"shape{bench.serial}",
                              "REDIS_URL": redis.url})


ROWS = {"P18": p18, "shape50": shape50}
