"""What the rows share: servers pinned to cores, runs of the load generator, yardsticks, numbers.

Every process is started here and ended by its own id. Data directories stand under one temporary
folder on the disk of the checkout (WEIR_BENCH_DIR names another), and go when the run ends.
"""
import json
import os
import pathlib
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[1]
BUILD = pathlib.Path(os.environ.get("WEIR_BUILD", ROOT / "build/release"))
BINARY = pathlib.Path(os.environ.get("WEIR_BINARY", BUILD / "weir"))
SERVER_CORE, CLIENT_CORE = 0, 1
TICKS = os.sysconf("SC_CLK_TCK")


def say(text):
    print(text, flush=True)


def pinned(core):
    return ["taskset", "-c", str(core)] if core is not None else []


def free_port():
    import socket
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def memory_mb(pid, name="VmHWM"):
    found = re.search(rf"{name}:\s+(\d+) kB", pathlib.Path(f"/proc/{pid}/status").read_text())
    return int(found.group(1)) / 1024


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Watch:
    """Peak RSS and CPU share of a process over a `with` block."""

    def __init__(self, pid):
        self.pid = pid

    def __enter__(self):
        self.cpu = cpu_seconds(self.pid)
        self.time = time.monotonic()
        return self

    def __exit__(self, *_):
        self.seconds = time.monotonic() - self.time
        self.cpu_percent = 100 * (cpu_seconds(self.pid) - self.cpu) / self.seconds
        self.rss_mb = self.peak()

    def peak(self):
        return memory_mb(self.pid)


class Server:
    """A weir of our own."""

    def __init__(self, folder, core=None, key=None, **settings):
        self.data_dir = pathlib.Path(folder)
        self.core = core
        self.key = key
        self.port = None
        self.settings = {"PORT": "0", "DATA_DIR": str(self.data_dir), "LOG_LEVEL": "warn",
                         "JOURNAL_MAX_MB": "65536"}
        self.settings.update({n: str(v) for n, v in settings.items()})
        if core is not None:
            self.settings.setdefault("LOOPS", "1")
        self.process = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self):
        return self.process.pid

    def environment(self):
        clean = {n: v for n, v in os.environ.items() if n in ("PATH", "HOME", "LANG")}
        return {**clean, **self.settings}

    def start(self, same_port=False):
        """Gives the seconds until /health/ready said 200."""
        if not same_port:
            self.port = free_port()
        self.settings["PORT"] = str(self.port)
        self.log = open(self.data_dir.with_suffix(".log"), "ab")
        begun = time.monotonic()
        self.process = subprocess.Popen([*pinned(self.core), str(BINARY), "serve"],
                                        cwd=self.data_dir.parent, env=self.environment(),
                                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=self.log, text=True)
        while not self.is_ready():
            if self.process.poll() is not None:
                raise SystemExit(f"bench: the server ended: see {self.log.name}:\n"
                                 + pathlib.Path(self.log.name).read_text()[-2000:])
            if time.monotonic() - begun > 600:
                raise SystemExit("bench: the server was not ready after 600 s")
            time.sleep(0.001)
        ready_s = time.monotonic() - begun
        if self.key is None:
            for line in self.process.stdout:
                if re.fullmatch(r"\s*weir_\S+\s*", line):
                    self.key = line.strip()
                    break
        return ready_s

    def is_ready(self):
        try:
            with urllib.request.urlopen(f"{self.url}/health/ready", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def get(self, path):
        request = urllib.request.Request(self.url + path, headers={"X-API-Key": self.key})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def metric(self, name):
        """One number of /metrics; 0 when it is not there."""
        text = self.get("/metrics").decode()
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.M)
        return float(found.group(1)) if found else 0.0

    def backlog(self):
        return int(self.metric("event_queue_size"))

    def wait_drained(self, limit_s=3600):
        """Until everything acknowledged is in the store; gives the seconds it took."""
        begun = time.monotonic()
        while self.backlog() > 0:
            if time.monotonic() - begun > limit_s:
                raise SystemExit("bench: the backlog did not drain")
            time.sleep(0.02)
        return time.monotonic() - begun

    def stop(self):
        if self.process is None:
            return
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(120)
        self.process.stdout.close()
        self.log.close()
        self.process = None

    def restart(self, **settings):
        self.stop()
        self.settings.update({n: str(v) for n, v in settings.items()})
        return self.start()


class Nginx:
    """`return 202` with one worker on a core, nothing stored."""

    def __init__(self, folder, core):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        temporary = "".join(f"{n}_temp_path {self.folder}/{n};\n" for n in
                            ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (self.folder / "nginx.conf").write_text(
            "worker_processes 1;\ndaemon off;\nerror_log stderr error;\nworker_rlimit_nofile 65536;\n"
            f"pid {self.folder}/nginx.pid;\nevents {{ worker_connections 8192; }}\n"
            f"http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 3600s;\n{temporary}"
            f"server {{ listen 127.0.0.1:{self.port} backlog=4096; location / {{ return 202; }} }} }}\n")
        self.process = subprocess.Popen(
            [*pinned(core), "nginx", "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_port(self.port, self.process)

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


class Nats:
    """A local nats-server with JetStream on a file."""

    def __init__(self, folder):
        self.port = free_port()
        self.process = subprocess.Popen(
            ["nats-server", "-js", "-sd", str(folder), "-a", "127.0.0.1", "-p", str(self.port)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_port(self.port, self.process)

    def publish(self, messages, size):
        url = f"nats://127.0.0.1:{self.port}"
        return float(output([helper("jetstream_pub", "-lnats"), url, str(messages), str(size)]))

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


def wait_port(port, process):
    import socket
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    raise SystemExit(f"bench: {process.args} did not listen")


def output(words, **options):
    done = subprocess.run(words, capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise SystemExit(f"bench: {' '.join(map(str, words))}: {done.stdout}{done.stderr}")
    return done.stdout


def helper(name, *libraries):
    """Compiles bench/NAME.c beside the release build, once."""
    target = BUILD / f"bench_{name}"
    source = ROOT / f"bench/{name}.c"
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        output(["cc", "-std=gnu17", "-O2", "-Wall", "-Wextra", str(source), "-o", str(target), *libraries])
    return str(target)


def load(url, key, core=CLIENT_CORE, check=True, **options):
    """One run of `weir bench`; option names as on the command line, `_` for `-`."""
    words = [*pinned(core), str(BINARY), "bench", "--json", "--url", url, "--key", key]
    for name, value in options.items():
        option = "--" + name.replace("_", "-")
        words += [option] if value is True else [option, str(value)]
    done = subprocess.run(words, capture_output=True, text=True)
    if not done.stdout.strip():
        raise SystemExit(f"bench: {done.stderr}")
    got = json.loads(done.stdout)
    if check and (got["errors"] or got["broken"]):
        raise SystemExit(f"bench: {got['errors']} errors (first {got['first_error_status']}), "
                         f"{got['broken']} broken connections")
    return got


def audit(server, ids):
    """The audit's own line; ends the run when an acknowledged id is lost or twice there."""
    return output([str(BINARY), "bench", "--url", server.url, "--key", server.key,
                   "--ids", str(ids), "--audit"]).strip()


def quantile(values, share):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class Pace:
    """The paced write + fdatasync: alone, before and after what it stands beside."""

    def __init__(self, folder, per_second=1000):
        self.file = pathlib.Path(folder) / "pace.dat"
        self.per_second = per_second
        self.microseconds = []

    def run(self, seconds):
        text = output([helper("fsync_pace"), str(self.file), str(self.per_second), str(seconds)])
        self.microseconds += [float(one) for one in text.split()]

    def ms(self, share):
        return quantile(self.microseconds, share) / 1000

    def text(self):
        return (f"write+fdatasync alone p50 {self.ms(.5):.2f} p99 {self.ms(.99):.2f} "
                f"max {self.ms(1):.1f} ms")


median = statistics.median


def machine():
    """CPU model, cores, memory, kernel, date."""
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    total = re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text())
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True,
                            text=True).stdout.strip()
    return (f"{model.group(1) if model else os.uname().machine}, {os.cpu_count()} cores, "
            f"{int(total.group(1)) / 1048576:.0f} GiB, Linux {os.uname().release}, "
            f"{time.strftime('%Y-%m-%d %H:%M')}, commit {commit}")


class Row:
    """One line of the answer."""

    def __init__(self, name, what, ours, target, met, yardstick="-", ratio="-", rss_mb=None,
                 cpu_percent=None, note=""):
        self.name, self.what, self.ours, self.target = name, what, ours, target
        self.verdict = {True: "met", False: "short", None: "-"}[met]
        self.yardstick, self.ratio = yardstick, ratio
        self.rss = "-" if rss_mb is None else f"{rss_mb:.0f} MB"
        self.cpu = "-" if cpu_percent is None else f"{cpu_percent:.0f} %"
        self.note = note

    def cells(self):
        return [self.what, self.ours, self.yardstick, self.ratio, self.target, self.verdict,
                self.rss, self.cpu, self.note]

    def show(self):
        say(f"{self.name:4} {self.what}: {self.ours} | yardstick {self.yardstick} | ratio {self.ratio} | "
            f"target {self.target} | {self.verdict} | RSS {self.rss} | CPU {self.cpu}"
            + (f" | {self.note}" if self.note else ""))


class Bench:
    """The run: options, the folder for data, the rows made so far."""

    def __init__(self, quick, options):
        self.quick = quick
        self.options = options
        self.rounds = 3 if quick else 5
        self.folder = pathlib.Path(tempfile.mkdtemp(
            prefix="weir-bench-", dir=os.environ.get("WEIR_BENCH_DIR", ROOT / "build")))
        self.serial = 0
        self.rows = []

    def seconds(self, full, quick):
        return quick if self.quick else full

    def place(self, name):
        self.serial += 1
        return self.folder / f"{name}{self.serial}"

    def server(self, core=None, **settings):
        one = Server(self.place("data"), core, **settings)
        one.start()
        return one

    def discard(self, server):
        server.stop()
        shutil.rmtree(server.data_dir, ignore_errors=True)

    def add(self, *values, **named):
        row = Row(*values, **named)
        self.rows.append(row)
        row.show()

    def close(self):
        shutil.rmtree(self.folder, ignore_errors=True)


class Background:
    """Runs a function in a thread; `result()` waits for it."""

    def __init__(self, function, *values, **named):
        self.value = None
        self.error = None

        def body():
            try:
                self.value = function(*values, **named)
            except BaseException as error:  # the waiting thread raises it again
                self.error = error

        self.thread = threading.Thread(target=body)
        self.thread.start()

    def result(self):
        self.thread.join()
        if self.error is not None:
            raise self.error
        return self.value


sys.dont_write_bytecode = True
