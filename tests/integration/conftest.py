"""Starts real servers for the black-box tests.

`weir` is a factory: weir(PORT=…, SETTING=…) starts a server of its own in a temporary directory on a
free port and stops it by its process id. `server` is one that is shared by a module. The binary is
build/release/weir, or the one that WEIR_BINARY names. With WEIR_TEST_STORE=postgres each of them has
a database of its own on a PostgreSQL server that the first one starts; with WEIR_TEST_JOURNAL=nats a stream of its
own on a NATS server. With WEIR_TEST_LIMITS=redis all share a Redis, where each database has keys of its own.
"""
import atexit
import base64
import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("WEIR_BINARY", ROOT / "build/release/weir"))
STORE = os.environ.get("WEIR_TEST_STORE", "sqlite")
JOURNAL = os.environ.get("WEIR_TEST_JOURNAL", "local")
LIMITS = os.environ.get("WEIR_TEST_LIMITS", "local")
LONG = bool(os.environ.get("WEIR_TEST_LONG"))
# The preset of the binary. A sanitizer's is slower, and what it takes of memory says nothing of the released one.
RELEASED = os.environ.get("WEIR_TEST_PRESET", "release") == "release"
START_SECONDS = 30 if RELEASED else 180
ANSWER_SECONDS = 60 if RELEASED else 360
# A hash of the usual cost takes longer than most requests; test_keys.py asks for that one.
CHEAP_KEYS = {"ARGON2_MEMORY_KIB": "64", "ARGON2_PASSES": "1"}
DURABILITY = {"local": "fsync", "nats": "jetstream"}[JOURNAL]

sys.path.insert(0, str(ROOT / "tests/support"))
import nats as nats_server  # noqa: E402  (found by the line above)
import postgres as postgres_server  # noqa: E402


class Databases:
    """A database for each data directory, on one server."""

    def __init__(self):
        self.server = None
        self.names = {}

    def start(self):
        if self.server is None:
            self.server = postgres_server.Postgres()
            atexit.register(self.server.close)
        return self.server

    def of(self, data_dir):
        """The name of the directory's own database."""
        if data_dir not in self.names:
            self.names[data_dir] = self.start().new_database()
        return self.names[data_dir]

    def settings(self, data_dir):
        return self.start().store_settings(self.of(data_dir), DATABASE_MIN_CONNECTIONS="2")


databases = Databases()


@pytest.fixture(scope="module")
def database_server():
    """A PostgreSQL of the file's own: for tests that stop it, or look into it."""
    one = postgres_server.Postgres()
    yield one
    one.close()


@pytest.fixture
def database(database_server):
    """A server that runs, and an empty database on it."""
    if database_server.process is None:
        database_server.start()
    database_server.name = database_server.new_database()
    return database_server


@pytest.fixture
def nats():
    """A NATS server of the test's own."""
    one = nats_server.Nats()
    yield one
    one.close()


class Streams:
    """A stream for each data directory, on one server."""

    def __init__(self):
        self.server = None
        self.names = {}

    def settings(self, data_dir):
        if self.server is None:
            self.server = nats_server.Nats()
            atexit.register(self.server.close)
        name = self.names.setdefault(data_dir, f"weir{len(self.names)}")
        return {"NATS_URL": self.server.url, "NATS_STREAM": name}


streams = Streams()


class Limits:
    """One Redis for all: what is kept there stands under the identity of the database."""

    def __init__(self):
        self.server = None
        self.folder = None

    def settings(self):
        if self.server is None:
            import redis_servers  # it needs what stands here
            self.folder = tempfile.TemporaryDirectory(prefix="weir-redis-")
            self.server = redis_servers.Redis(pathlib.Path(self.folder.name))
            atexit.register(self.folder.cleanup)
            atexit.register(self.server.kill)
        return {"REDIS_URL": f"redis://127.0.0.1:{self.server.port}/0"}


limits = Limits()


class Answer:
    """Status, headers (lower case) and body of one answer."""

    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"Answer({self.status}, {self.body[:200]!r})"


class Weir:
    """One running server. `wrap`: words in front of the command (a namespace, another user)."""

    def __init__(self, data_dir, settings, start=True, wrap=()):
        self.data_dir = pathlib.Path(data_dir)
        self.settings = {"PORT": "0", "DATA_DIR": str(self.data_dir), "DISK_RESERVE_MB": "16", **CHEAP_KEYS}
        if STORE == "postgres":
            self.settings.update(databases.settings(self.data_dir))
        if JOURNAL == "nats":
            self.settings.update(streams.settings(self.data_dir))
        if LIMITS == "redis":
            self.settings.update(limits.settings())
        if "NATS_URL" in settings:
            self.settings.pop("NATS_STREAM", None)
        self.settings.update({name: str(value) for name, value in settings.items()})
        self.wrap = list(wrap)
        self.process = None
        self.port = None
        self.key = None
        self.log = []
        self.output = []
        if start:
            self.start()

    def bodies(self):
        """(names, bytes in all) of the large bodies that the journal keeps, whole or not."""
        if not self.settings.get("NATS_URL"):
            sizes = {}
            for one in (self.data_dir / "uploads").iterdir():
                with contextlib.suppress(FileNotFoundError):  # it went meanwhile
                    sizes[one.name] = one.stat().st_size
            return sorted(sizes), sum(sizes.values())
        name = self.settings.get("NATS_STREAM", "weir")
        state = nats_server.ask(self.settings["NATS_URL"], f"$JS.API.STREAM.INFO.{name}_uploads",
                                {"subjects_filter": ">"})["state"]
        subjects = dict(state.get("subjects") or {})
        subjects.pop(name + ".uploads.store", None)  # whose the stream is
        return sorted(subjects), state["bytes"]

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def environment(self):
        clean = {n: v for n, v in os.environ.items() if n in ("PATH", "HOME", "LANG", "TMPDIR") or n.startswith(("ASAN_", "TSAN_", "UBSAN_", "LD_PRELOAD", "FAKETIME"))}
        clean.update(self.settings)
        return clean

    def start(self, wait=True):
        """Starts the process; with `wait` returns when it says on which port it listens."""
        listening = threading.Event()
        self.log, self.output = [], []
        self.process = subprocess.Popen(
            [*self.wrap, str(BINARY), "serve"], cwd=self.data_dir.parent, env=self.environment(),
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

        def read_log(pipe):
            for line in pipe:
                self.log.append(line)
                found = re.search(r"listens on .* port (\d+)", line)
                if found:
                    self.port = int(found.group(1))
                    listening.set()
            listening.set()

        def read_output(pipe):
            for line in pipe:
                self.output.append(line)

        self.readers = [threading.Thread(target=read_log, args=(self.process.stderr,), daemon=True),
                        threading.Thread(target=read_output, args=(self.process.stdout,), daemon=True)]
        for reader in self.readers:
            reader.start()
        if wait:
            assert listening.wait(START_SECONDS), "the server did not start: " + "".join(self.log)
            assert self.process.poll() is None, "the server ended: " + "".join(self.log)
            self.find_key()
        return self

    def find_key(self):
        """The key that the first start prints (or the one known from before)."""
        if self.key:
            return
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            for line in list(self.output):
                if re.fullmatch(r"\s*weir_\S+\s*", line):
                    self.key = line.strip()
                    return
            self.readers[1].join(0.01)
        raise AssertionError("no key was printed")

    def stop(self, with_signal=signal.SIGTERM, timeout=60):
        """Ends it and gives its exit status."""
        if self.process is None:
            return None
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        for reader in self.readers:
            reader.join()
        self.process.stdout.close()
        self.process.stderr.close()
        self.process = None
        return status

    def kill(self):
        return self.stop(signal.SIGKILL)

    def command(self, *words, check=True):
        """Runs `weir WORDS…` on the same data directory."""
        done = subprocess.run([str(BINARY), *words], cwd=self.data_dir.parent, env=self.environment(),
                              capture_output=True, text=True, timeout=120)
        if check:
            assert done.returncode == 0, done.stderr
        return done

    def connect(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_SECONDS)

    def request(self, method, path, body=None, headers=None, key=True):
        """One request on a connection of its own. `body` may be bytes, text, or a value for JSON;
        `key` True: this server's, None: none, or a key's text."""
        sent = dict(headers or {})
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        elif isinstance(body, str):
            body = body.encode()
        if key is True:
            sent.setdefault("X-API-Key", self.key)
        elif key:
            sent.setdefault("X-API-Key", key)
        connection = self.connect()
        try:
            connection.request(method, path, body=body, headers=sent)
            got = connection.getresponse()
            return Answer(got.status, {n.lower(): v for n, v in got.getheaders()}, got.read())
        finally:
            connection.close()

    def get(self, path, **options):
        return self.request("GET", path, **options)

    def post(self, path, body=None, **options):
        return self.request("POST", path, body, **options)

    def new_org(self, name, tier="unlimited"):
        """A further org; gives its key."""
        return self.command("org", "create", name, "--tier", tier).stdout.strip().split("\n")[-1]

    def number_in_store(self, sql):
        """One number of a SELECT, read beside the server."""
        if STORE == "postgres":
            return int(databases.start().sql(sql, databases.of(self.data_dir)))
        with contextlib.closing(sqlite3.connect(f"file:{self.data_dir}/weir.db?mode=ro", uri=True)) as database:
            return database.execute(sql).fetchone()[0]

    def wait_applied(self, position):
        """Until everything up to `position` is queryable."""
        answer = self.get(f"/api/v1/events?limit=1&wait_for={position}")
        assert answer.status == 200, answer


def pytest_collection_modifyitems(items):
    """What is about the files of the database or of the journal is no test of other engines; what is `long` is run in
    the long set alone. The slowest come first, so that no worker ends alone with one of them."""
    if STORE != "sqlite":
        items[:] = [item for item in items if item.get_closest_marker("sqlite_alone") is None]
    if JOURNAL != "local":
        items[:] = [item for item in items if item.get_closest_marker("local_journal_alone") is None]
    if not RELEASED:
        items[:] = [item for item in items if item.get_closest_marker("released") is None]
    items[:] = [item for item in items if LONG == bool(item.get_closest_marker("long"))]
    items.sort(key=lambda item: -max([mark.args[0] for mark in item.iter_markers("seconds")], default=0))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Several workers: whoever is free takes the next. xdist's own way gives each a part of all at the start: the slowest to
    the first worker, who ends long after the others."""
    from xdist.scheduler import LoadScheduling  # not there without xdist

    class Next(LoadScheduling):
        def _send_tests(self, node, num):
            # Each has one that runs and the next; of the quick ones a few of a file, which share a server.
            is_slow = len(self.pending) > len(self.collection) * 7 // 8
            room = (2 if is_slow else 8) - len(self.node2pending[node])
            if room > 0:
                super()._send_tests(node, min(num, room))

    return Next(config, log)


@pytest.fixture
def weir():
    """Factory of servers; all are stopped at the end of the test."""
    running = []
    with tempfile.TemporaryDirectory(prefix="weir-test-") as folder:

        def make(start=True, data_dir=None, wrap=(), **settings):
            one = Weir(data_dir or os.path.join(folder, f"data{len(running)}"), settings, start, wrap)
            running.append(one)
            return one

        yield make
        for one in running:
            one.stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def server():
    """One server for the tests of a module."""
    with tempfile.TemporaryDirectory(prefix="weir-test-") as folder:
        one = Weir(os.path.join(folder, "data"), {})
        yield one
        one.stop(signal.SIGKILL)


def basic(user, password=""):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
