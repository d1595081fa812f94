"""The rows of TARGETS: each function measures one and adds its lines to the bench."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import engines
from measure import (BINARY, BUILD, ROOT, SERVER_CORE, Background, Nats, Nginx, Pace, Server, Watch,
                     audit, cpu_seconds, load, median, memory_mb, output, say)

sys.path.insert(0, str(ROOT / "tests/support"))
import postgres  # noqa: E402  (found by the line above)

EVENT_BYTES = 160
KEY_FORM = "weir_0000000000000000_" + "0" * 30  # as long as a real one, for the yardstick's request


def rate(value):
    return f"{value:,.0f}/s"


def within(ours_ms, target_ms, pace):
    """A p99 target is met if it holds or stays within twice the disk's own p99."""
    return ours_ms <= target_ms or ours_ms <= 2 * pace.ms(.99)


def latencies(got):
    return f"p50 {got['p50_ms']:.2f} p95 {got['p95_ms']:.2f} p99 {got['p99_ms']:.2f} ms"


# --- P1 ------------------------------------------------------------------------------------------


def p1_round(bench, connections, paused, seconds, ids):
    """One run against a fresh server on one core: the load, then the backlog applied and audited."""
    server = bench.server(SERVER_CORE, APPLY_PAUSED=int(paused))
    with Watch(server.pid) as watch:
        got = load(server.url, server.key, connections=connections, seconds=seconds,
                   event_bytes=EVENT_BYTES, ids=ids)
    got["backlog"] = server.backlog()
    if paused:
        server.restart(APPLY_PAUSED=0)
    got["drain_s"] = server.wait_drained()
    got["audit"] = audit(server, ids)
    got["rss_mb"], got["cpu_percent"] = watch.rss_mb, watch.cpu_percent
    bench.discard(server)
    ids.unlink()
    return got


def p1(bench):
    nginx = Nginx(bench.place("nginx"), SERVER_CORE)
    targets = {True: {64: .45, 256: .8, 1024: .75}, False: {64: .3, 256: .6, 1024: .6}}
    aims = {64: .6, 256: .95, 1024: .9}
    seconds = bench.seconds(5, 2)
    for paused in (True, False):
        for connections, target in targets[paused].items():
            ours, theirs = [], []
            for _ in range(bench.rounds):
                yard = load(f"http://127.0.0.1:{nginx.port}", KEY_FORM, connections=connections,
                            seconds=seconds, event_bytes=EVENT_BYTES)
                theirs.append(yard["requests_per_s"])
                ours.append(p1_round(bench, connections, paused, seconds, bench.place("ids")))
            mine = median([one["requests_per_s"] for one in ours])
            ratio = mine / median(theirs)
            last = ours[-1]
            name = "P1a" if paused else "P1b"
            aim = f" (aim {aims[connections]})" if paused else ""
            bench.add(name, f"{connections} connections, applying {'paused' if paused else 'on'}", rate(mine),
                      f">= {target}{aim}", ratio >= target, f"nginx return 202 {rate(median(theirs))}",
                      f"{ratio:.2f}", max(one["rss_mb"] for one in ours),
                      median([one["cpu_percent"] for one in ours]),
                      f"{latencies(last)}; backlog {last['backlog']:,} drained in {last['drain_s']:.1f} s; "
                      f"{last['audit']}")
    nginx.stop()


# --- P2 ------------------------------------------------------------------------------------------


def p2(bench):
    seconds = bench.seconds(60, 15)
    server = bench.server()
    pace = Pace(bench.folder)
    ids = bench.place("ids")
    pace.run(bench.seconds(15, 5))
    backlogs = []
    with Watch(server.pid) as watch:
        running = Background(load, server.url, server.key, core=None, check=False, connections=64,
                             rate=10000, seconds=seconds, event_bytes=EVENT_BYTES, ids=ids)
        while running.thread.is_alive():
            backlogs.append(server.backlog())
            time.sleep(1)
        got = running.result()
    pace.run(bench.seconds(15, 5))
    drained = server.wait_drained()
    line = audit(server, ids)
    bench.discard(server)
    errors = got["errors"] + got["broken"] + got["late"]
    met = (errors == 0 and got["p50_ms"] <= 1 and got["p95_ms"] <= 2
           and within(got["p99_ms"], 5, pace) and max(backlogs) <= 20000)
    bench.add("P2", f"10,000/s for {seconds} s, into SQLite", f"{latencies(got)}, {errors} errors",
              "p50 <= 1, p95 <= 2, p99 <= 5 ms (or 2x the disk's), no error, backlog bounded and drained",
              met, pace.text(), f"p99 {got['p99_ms'] / pace.ms(.99):.1f}x", watch.rss_mb, watch.cpu_percent,
              f"{got['events_per_s']:,.0f}/s; p99.9 {got['p999_ms']:.1f} max {got['max_ms']:.1f} ms; backlog at "
              f"most {max(backlogs):,}, drained in {drained:.2f} s; {line}")


# --- P3 ------------------------------------------------------------------------------------------


def p3_round(bench, batch, paused, seconds):
    server = bench.server(None, APPLY_PAUSED=int(paused))
    with Watch(server.pid) as watch:
        got = load(server.url, server.key, core=None, connections=1, batch=batch, seconds=seconds,
                   event_bytes=EVENT_BYTES)
    got["rss_mb"], got["cpu_percent"] = watch.rss_mb, watch.cpu_percent
    got["backlog"] = server.backlog()
    bench.discard(server)
    return got


def p3(bench):
    nats = Nats(bench.place("nats"))
    seconds = bench.seconds(4, 2)
    for batch, paused in ((1000, True), (10000, True), (1000, False), (10000, False)):
        ours, theirs = [], []
        for _ in range(bench.rounds):
            theirs.append(nats.publish(bench.seconds(500000, 200000), EVENT_BYTES))
            ours.append(p3_round(bench, batch, paused, seconds))
        mine = median([one["events_per_s"] for one in ours])
        ratio = mine / median(theirs)
        bench.add("P3", f"NDJSON batches of {batch:,} on one connection, applying {'paused' if paused else 'on'}",
                  f"{mine:,.0f} events/s", ">= 500,000/s and >= 3x", mine >= 500000 and ratio >= 3,
                  f"JetStream async publish to a file, not synced {rate(median(theirs))}", f"{ratio:.1f}",
                  max(one["rss_mb"] for one in ours), median([one["cpu_percent"] for one in ours]),
                  f"backlog at the end {ours[-1]['backlog']:,}")
    nats.stop()


# --- P4, P5's yardstick, P22: programs of their own --------------------------------------------------


def build(target):
    output(["cmake", "--preset", "release", "-B", str(BUILD)], cwd=ROOT)
    output(["cmake", "--build", str(BUILD), "--target", target, "--", "-j2"], cwd=ROOT)
    return str(BUILD / target)


def measured(words):
    """Output, peak RSS and CPU of a program that is its own server."""
    with open(os.devnull, "rb") as nothing:
        process = subprocess.Popen(words, stdin=nothing, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                   text=True)
    begun = time.monotonic()
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    if process.returncode not in (0, 1):  # 1: a part is short, which its own row says
        raise SystemExit(f"bench: {' '.join(words)}: {text}")
    cpu = 100 * (usage.ru_utime + usage.ru_stime) / max(time.monotonic() - begun, .001)
    return text, usage.ru_maxrss / 1024, cpu


def p4(bench):
    program = build("apply_bench")
    rows = bench.seconds(5000000, 500000)
    for options, target in ((["--random-dedup"], 100000), (["--server-ids"], 300000)):
        speeds, rss, cpu = [], [], []
        for _ in range(1 if bench.quick else bench.rounds):
            folder = bench.place("apply")
            folder.mkdir()
            text, peak, share = measured([program, *options, "--rows", str(rows), "--directory", str(folder)])
            speeds.append(float(re.search(r"apply_rows_per_s (\d+)", text).group(1)))
            rss.append(peak)
            cpu.append(share)
            shutil.rmtree(folder)
        mine = median(speeds)
        bench.add("P4", f"SQLite, empty to {rows:,} rows, {options[0][2:]}", rate(mine), f">= {target:,}/s mean",
                  mine >= target, rss_mb=max(rss), cpu_percent=median(cpu))


    p4_postgres(bench, rows // 10)


def p4_postgres(bench, rows):
    """Ours and the hand-made loader in turns, each into an empty database of the same server, which syncs."""
    ours, yard = build("apply_bench"), build("postgres_copy")
    server = postgres.Postgres(fsync="on", full_page_writes="on", shared_buffers="256MB", max_wal_size="4GB")
    mine, theirs, rss, cpu = [], [], [], []
    try:
        for _ in range(bench.rounds):
            text, _, _ = measured([yard, "--url", server.url(server.new_database()), "--rows", str(rows)])
            theirs.append(float(re.search(r"copy_rows_per_s (\d+)", text).group(1)))
            folder = bench.place("apply")
            folder.mkdir()
            text, peak, share = measured([ours, "--url", server.url(server.new_database()), "--rows", str(rows),
                                          "--directory", str(folder)])
            mine.append(float(re.search(r"apply_rows_per_s (\d+)", text).group(1)))
            rss.append(peak)
            cpu.append(share)
            shutil.rmtree(folder)
    finally:
        server.close()
    ratio = median(mine) / median(theirs)
    bench.add("P4", f"PostgreSQL 15, empty to {rows:,} rows, random-dedup", rate(median(mine)), ">= 0.8x",
              ratio >= .8, f"hand-made COPY + INSERT, {rate(median(theirs))}", f"{ratio:.2f}", max(rss), median(cpu))


def readings(bench):
    """Readings of a thousand devices, their roll-ups made beside: on SQLite, and on PostgreSQL that syncs."""
    program = build("apply_bench")
    server = postgres.Postgres(fsync="on", full_page_writes="on", shared_buffers="256MB", max_wal_size="4GB")
    try:
        for engine, rows in (("SQLite", bench.seconds(1000000, 400000)),
                             ("PostgreSQL 15", bench.seconds(400000, 200000))):
            speeds, rss = [], []
            for _ in range(bench.rounds):
                folder = bench.place("apply")
                folder.mkdir()
                where = [] if engine == "SQLite" else ["--url", server.url(server.new_database())]
                text, peak, _ = measured([program, "--readings", "1000", "--per-frame", "500", "--rows", str(rows),
                                          "--directory", str(folder), *where])
                speeds.append(float(re.search(r"apply_rows_per_s (\d+)", text).group(1)))
                rss.append(peak)
                shutil.rmtree(folder)
            bench.add("READ", f"{engine}, {rows:,} readings of 1,000 devices", rate(median(speeds)), "-", None,
                      rss_mb=max(rss))
    finally:
        server.close()


def p5(bench):
    text, peak, share = measured(["sh", str(ROOT / "bench/json_run"), str(BUILD)])
    shape, bodies = "", {}
    for line in text.splitlines():
        found = re.match(r"(\w+), \d+ MB; (.*)", line)
        if found:
            shape, bodies[found.group(1)] = found.group(1), found.group(2)
        found = re.match(r"  ours, (whole|16 KB) +(\d+) MB/s = ([\d.]+) x simdjson, +([\d.]+) x jansson", line)
        if found:
            feed, speed, simdjson, jansson = found.groups()
            bench.add("P5", f"JSON reading of a health export, {shape}, fed {feed}", f"{speed} MB/s",
                      ">= 0.6x simdjson DOM, >= 8x jansson", float(simdjson) >= .6 and float(jansson) >= 8,
                      bodies[shape], f"{simdjson}, {jansson}", peak, share)


def p22(bench):
    text, peak, share = measured([build("parts_bench")])
    for what, ours, spread, target, verdict in re.findall(
            r"^P22 +(.*?)  +([\d.]+ us)  \((.*?)\)  target (.*?)  (met|short)$", text, re.M):
        bench.add("P22", what, ours, target, verdict == "met", rss_mb=peak, cpu_percent=share, note=spread)


# --- P15 -----------------------------------------------------------------------------------------


def histogram_of(server, family):
    """Bucket bounds and cumulative counts."""
    text = server.get("/metrics").decode()
    rows = re.findall(rf'^{family}_bucket{{le="([^"]+)"}} (\d+)', text, re.M)
    return [(float(bound), int(count)) for bound, count in rows]


def histogram_quantile(before, after, share):
    """The bound of the bucket in which the quantile lies."""
    counts = [(bound, count - old[1]) for (bound, count), old in zip(after, before)]
    wanted = counts[-1][1] * share
    return next(bound for bound, count in counts if count >= wanted)


def p15(bench):
    server = bench.server()
    seconds = bench.seconds(10, 4)
    load(server.url, server.key, core=None, connections=64, seconds=1)
    before = histogram_of(server, "auth_latency_seconds")
    with Watch(server.pid) as watch:
        load(server.url, server.key, core=None, connections=64, seconds=seconds)
    after = histogram_of(server, "auth_latency_seconds")
    cached = histogram_quantile(before, after, .99) * 1e6
    bench.add("P15", "key check from the cache, full load", f"p99 <= {cached:.0f} us", "<= 20 us", cached <= 20,
              rss_mb=watch.rss_mb, cpu_percent=watch.cpu_percent)

    pace = Pace(bench.folder)
    calm, flooded = [], []
    for _ in range(bench.rounds):
        pace.run(2)
        calm.append(load(server.url, server.key, core=None, connections=32, rate=1000, seconds=seconds))
        flood = Background(load, server.url, server.key, core=None, check=False, connections=32, rate=1000,
                           seconds=seconds + 2, wrong_keys=True)
        time.sleep(1)
        with Watch(server.pid) as watch:
            flooded.append(load(server.url, server.key, core=None, connections=32, rate=1000, seconds=seconds))
        refused = flood.result()
        assert refused["requests"] == 0 and refused["first_error_status"] in (401, 503), refused
    calm_p99 = median([one["p99_ms"] for one in calm])
    flood_p99 = median([one["p99_ms"] for one in flooded])
    ratio = flood_p99 / calm_p99
    bench.add("P15", "1,000/s beside 1,000 wrong keys/s", f"p99 {flood_p99:.2f} ms", "<= 2x",
              ratio <= 2 or within(flood_p99, 0, pace), f"without the flood p99 {calm_p99:.2f} ms; {pace.text()}",
              f"{ratio:.2f}", watch.rss_mb, watch.cpu_percent, f"{refused['errors']:,} refused in the last run")
    bench.discard(server)


# --- P16 -----------------------------------------------------------------------------------------


def p16(bench):
    stripped = bench.folder / "stripped"
    output(["strip", "-o", str(stripped), str(BINARY)])
    size = stripped.stat().st_size / 1e6
    bench.add("P16", "stripped binary", f"{size:.2f} MB", "< 4 MB", size < 4)

    first, again = [], []
    for _ in range(bench.rounds):
        server = Server(bench.place("data"))
        first.append(server.start() * 1000)
        again.append(server.restart() * 1000)
        bench.discard(server)
    bench.add("P16", "process start to /health/ready 200, first start (makes org and key)",
              f"{median(first):.0f} ms", "< 200 ms", median(first) < 200)
    bench.add("P16", "process start to /health/ready 200, later starts", f"{median(again):.0f} ms", "< 200 ms",
              median(again) < 200)

    server = bench.server()
    time.sleep(3)
    before, begun = cpu_seconds(server.pid), time.monotonic()
    time.sleep(bench.seconds(30, 10))
    cpu = 100 * (cpu_seconds(server.pid) - before) / (time.monotonic() - begun)
    rss = memory_mb(server.pid, "VmRSS")
    bench.discard(server)
    bench.add("P16", "idle after a first start, default settings", f"{cpu:.2f} % CPU, {rss:.1f} MB RSS",
              "< 0.2 % CPU, < 32 MB RSS", cpu < .2 and rss < 32, rss_mb=rss, cpu_percent=cpu)


# --- P17 -----------------------------------------------------------------------------------------


def fill(bench, server, records, limit_s):
    """Batches of server-made ids until `records` are applied or the time is up; gives how many."""
    done, begun = 0, time.monotonic()
    while done < records and time.monotonic() - begun < limit_s:
        step = min(records - done, 2000000)
        got = load(server.url, server.key, core=None, connections=1, batch=10000, count=max(1, step // 10000),
                   event_bytes=EVENT_BYTES, server_ids=True)
        done += got["events"]
        server.wait_drained()
        say(f"     P17: {done:,} records in the store after {time.monotonic() - begun:.0f} s, "
            f"{shutil.disk_usage(bench.folder).free / 1e9:.0f} GB free")
        if shutil.disk_usage(bench.folder).free < 8e9:
            break
    return done


def growth_latency(bench, server, pace):
    pace.run(3)
    runs = [load(server.url, server.key, core=None, connections=16, rate=1000,
                 seconds=bench.seconds(10, 4), server_ids=True) for _ in range(bench.rounds)]
    server.wait_drained()
    return median([one["p50_ms"] for one in runs]), median([one["p99_ms"] for one in runs])


def growth_apply(bench, server, server_ids, records):
    """Rows a second: `records` wait in the journal, then applying is switched on."""
    server.restart(APPLY_PAUSED=1)
    load(server.url, server.key, core=None, connections=1, batch=10000, count=records // 10000,
         event_bytes=EVENT_BYTES, **({"server_ids": True} if server_ids else {}))
    server.stop()
    server.settings["APPLY_PAUSED"] = "0"
    server.start()
    begun, at_begin = time.monotonic(), server.backlog()
    server.wait_drained()
    return at_begin / max(time.monotonic() - begun, .001)


def p17(bench):
    wanted = bench.options.p17_records or (2000000 if bench.quick else 100000000)
    limit_s = 60 if bench.quick else bench.options.p17_minutes * 60
    probe = bench.seconds(1000000, 200000)
    server = bench.server()
    pace = Pace(bench.folder)
    small = fill(bench, server, 1000000, limit_s)
    small_p50, small_p99 = growth_latency(bench, server, pace)
    small_apply = median([growth_apply(bench, server, True, probe) for _ in range(3)])
    big = small + fill(bench, server, wanted - small, limit_s)
    with Watch(server.pid):
        big_p50, big_p99 = growth_latency(bench, server, pace)
    big_apply = median([growth_apply(bench, server, True, probe) for _ in range(3)])
    big_random = median([growth_apply(bench, server, False, probe) for _ in range(3)])
    rss = memory_mb(server.pid)
    size = sum(one.stat().st_size for one in server.data_dir.glob("weir.db*")) / 1e9
    bench.discard(server)
    ran = f"run with {small:,} and {big:,} records behind (100 M asked), database {size:.1f} GB"
    p50 = big_p50 / small_p50
    bench.add("P17", f"202 latency at 1,000/s, {big:,} against {small:,} records",
              f"p50 {big_p50:.2f} p99 {big_p99:.2f} ms", "equal +-15 % (p50)", p50 <= 1.15,
              f"p50 {small_p50:.2f} p99 {small_p99:.2f} ms; {pace.text()}", f"{p50:.2f}", rss, None, ran)
    ratio = big_apply / small_apply
    bench.add("P17", "applying, server-made ids", rate(big_apply), "equal +-15 %", ratio >= .85,
              f"with {small:,} records {rate(small_apply)}", f"{ratio:.2f}", rss, None, ran)
    bench.add("P17", f"applying, random dedup ids, at {big:,}", rate(big_random), ">= 10,000/s",
              big_random >= 10000, rss_mb=rss, note=ran)


# --- the shape that users know -----------------------------------------------------------------------


def users(bench):
    server = bench.server()
    with Watch(server.pid) as watch:
        done = subprocess.run([str(BINARY), "bench", "--json", "--users", "--url", server.url, "--key", server.key],
                              capture_output=True, text=True)
    thresholds = done.stderr.strip().split("\n")[-1]
    got = json.loads(done.stdout)
    bench.discard(server)
    failed = got["errors"] + got["broken"]
    bench.add("users", "30 s ramp to 100 users, 60 s, 30 s down, no pause between requests",
              f"{got['requests_per_s']:,.0f}/s, {latencies(got)}, {failed} errors", "p95 < 100 ms, < 1 % errors",
              done.returncode == 0, rss_mb=watch.rss_mb, cpu_percent=watch.cpu_percent, note=thresholds)


# --- P7 ------------------------------------------------------------------------------------------


class Beside:
    """Four processes that do the same again and again until they are stopped."""

    def __init__(self, commands):
        loop = 'while :; do "$@" >/dev/null 2>&1 || exit 1; echo; done'
        self.processes = [subprocess.Popen(["sh", "-c", loop, "sh", *map(str, one)], stdout=subprocess.PIPE,
                                           start_new_session=True) for one in commands]

    def stop(self):
        """How often each has ended."""
        ended = []
        for process in self.processes:
            if process.poll() is not None:
                raise SystemExit(f"bench: {process.args}: {process.returncode}")
            os.killpg(process.pid, signal.SIGKILL)
            ended.append(len(process.communicate()[0]))
        return ended


def p7_body(path, size):
    """Lines of events without dedup ids: each upload of it is new."""
    line = '{"type":"sensor.sample","payload":{"sensor":%d,"value":%.3f,"unit":"C","note":"%s"}}\n'
    part = "".join(line % (i % 977, i * .37 % 100, "x" * (i % 60)) for i in range(20000)).encode()
    with open(path, "wb") as to:
        for _ in range(size // len(part) + 1):
            to.write(part)


def p7_load(server, seconds):
    return load(server.url, server.key, connections=16, rate=1000, seconds=seconds, event_bytes=EVENT_BYTES)


def p7(bench):
    body, seconds = bench.place("body"), bench.seconds(10, 4)
    p7_body(body, 200 << 20)
    alone, ours, theirs, uploads, rss, pace = [], [], [], 0, [], Pace(bench.folder)
    for _ in range(bench.rounds):
        pace.run(bench.seconds(3, 1))
        server = bench.server(None)
        alone.append(p7_load(server, seconds / 2))
        beside = Beside([["dd", f"if={body}", f"of={bench.place('copy')}", "bs=256k", "conv=fdatasync"]] * 4)
        theirs.append(p7_load(server, seconds))
        beside.stop()
        upload = ["curl", "-sfT", body, "-X", "POST", "-H", f"X-API-Key: {server.key}", "-H", "Expect:", "-H",
                  "Content-Type: application/x-ndjson", f"{server.url}/api/v1/events/batch"]
        with Watch(server.pid) as watch:
            beside = Beside([upload] * 4)
            ours.append(p7_load(server, seconds))
            uploads += sum(beside.stop())
        rss.append(watch.rss_mb)
        server.process.kill()  # a stop would apply gigabytes first
        bench.discard(server)
    mine, plain = median([one["p99_ms"] for one in ours]), median([one["p99_ms"] for one in theirs])
    middle = sorted(ours, key=lambda one: one["p99_ms"])[len(ours) // 2]
    bench.add("P7", "1,000/s beside 4 uploads of 200 MB, again and again", latencies(middle) + ", 0 errors",
              "p99 <= 10 ms, or 2x the yardstick's", within(mine, max(10, 2 * plain), pace),
              f"the same load beside four dd of the same bytes p99 {plain:.2f} ms; {pace.text()}", f"{mine / plain:.2f}",
              max(rss), watch.cpu_percent,
              f"alone p99 {median([one['p99_ms'] for one in alone]):.2f} ms; {uploads} uploads in all")


ROWS = {"P1": p1, "P2": p2, "P3": p3, "P4": p4, "READ": readings, "P5": p5, "P7": p7, "P15": p15, "P16": p16,
        "P17": p17, "P22": p22,
        "users": users, **engines.ROWS}
