#!/usr/bin/python3
"""A PostgreSQL server for tests, from Debian's package, in a temporary directory on a free port.

As a program: `postgres.py COMMAND…` starts one, runs the command with its URL in WEIR_TEST_POSTGRES, stops
it by its process id and ends as the command did; `--each PROGRAM…` runs several at once, each with a database of
its own; what failed comes last, a line each. A database for each test: new_database().
"""
import concurrent.futures
import ctypes
import glob
import itertools
import os
import pathlib
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import failures

START_SECONDS = 60
AT_ONCE = 3
# Nothing here outlives the test: no syncs. Many servers of ours, each with its readers: connections.
SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "400",
    "shared_buffers": "64MB",
    "max_wal_size": "512MB",
    "listen_addresses": "127.0.0.1",
    "log_min_messages": "warning",
    "timezone": "UTC",
}
# `weir` owns everything and needs no password; `locked` needs one.
ACCESS = """local all all trust
host all locked 127.0.0.1/32 scram-sha-256
host replication all 127.0.0.1/32 trust
host all all 127.0.0.1/32 trust
"""


def binary(name):
    found = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"))
    assert found, f"{name} is not installed (postgresql-15)"
    return found[-1]


def environment():
    """Without pytest's own variable, whose value is as long as a test's parameters."""
    return {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGINT)  # PR_SET_PDEATHSIG


class Postgres:
    """One server, or a standby of one. It may be stopped and started again on the same port."""

    def __init__(self, standby_of=None, **settings):
        self.settings = {**SETTINGS, **settings}
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="weir-postgres-"))
        self.data = self.folder / "data"
        self.log = self.folder / "log"
        self.process = None
        self.numbers = itertools.count(1)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.user = {}
        if os.geteuid() == 0:  # the server refuses to run as root
            name = next(n for n in ("postgres", "nobody") if n in {p.pw_name for p in pwd.getpwall()})
            self.user = {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []}
            os.chown(self.folder, pwd.getpwnam(name).pw_uid, pwd.getpwnam(name).pw_gid)
        if standby_of is not None:
            subprocess.run([binary("pg_basebackup"), "-h", "127.0.0.1", "-p", str(standby_of.port), "-U", "weir",
                            "-D", str(self.data), "-R", "-c", "fast", "--no-sync"], check=True, cwd="/",
                           env=environment(), **self.user)
            self.start()
            return
        subprocess.run([binary("initdb"), "-D", str(self.data), "-U", "weir", "-E", "UTF8", "--locale=C",
                        "-A", "trust", "--no-sync", "--no-instructions"], check=True, cwd="/",
                       stdout=subprocess.DEVNULL, env=environment(), **self.user)
        (self.data / "pg_hba.conf").write_text(ACCESS)
        self.start()
        self.sql("CREATE DATABASE weir")

    def start(self):
        words = [binary("postgres"), "-D", str(self.data), "-p", str(self.port), "-k", str(self.folder)]
        for name, value in self.settings.items():
            words += ["-c", f"{name}={value}"]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                                            env=environment(), preexec_fn=die_with_parent, **self.user)
        deadline = time.monotonic() + START_SECONDS
        while subprocess.run([binary("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)],
                             check=False, env=environment()).returncode != 0:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def stop(self, with_signal=signal.SIGINT):
        """SIGINT: sessions are ended, then it shuts down; SIGQUIT: at once, as after a crash."""
        if self.process is not None:
            self.process.send_signal(with_signal)
            self.process.wait(START_SECONDS)
            self.process = None

    def close(self):
        self.stop()
        shutil.rmtree(self.folder)

    def url(self, database="weir", user="weir", password=None):
        secret = "" if password is None else f":{password}"
        return f"postgresql://{user}{secret}@127.0.0.1:{self.port}/{database}"

    def sql(self, text, database="postgres"):
        """Runs SQL and gives its rows, one line each, columns separated by |."""
        done = subprocess.run([binary("psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1",
                               "-d", self.url(database), "-c", text],
                              check=True, capture_output=True, text=True, env=environment())
        return done.stdout.strip()

    def store_settings(self, database, connections=8, **more):
        """A server's that keeps its store there."""
        return {"DATABASE_URL": self.url(database), "DATABASE_MAX_CONNECTIONS": str(connections),
                "DATABASE_MIN_CONNECTIONS": "1", **more}

    def new_database(self):
        name = f"test{next(self.numbers)}"
        self.sql(f"CREATE DATABASE {name}")
        return name


class Lock:
    """Somebody else's open transaction that lets no one write."""

    def __init__(self, url, mode="SHARE ROW EXCLUSIVE"):
        self.process = subprocess.Popen([binary("psql"), "-X", "-q", "-A", "-t", "-d", url], text=True, env=environment(),
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.run(f"BEGIN; LOCK TABLE orgs, cursors IN {mode} MODE; SELECT 'held';")
        assert self.process.stdout.readline() == "held\n"

    def run(self, text):
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def rollback(self):
        self.run("ROLLBACK; SELECT 'free';")
        assert self.process.stdout.readline() == "free\n"

    def close(self):
        self.process.stdin.close()
        self.process.wait(START_SECONDS)
        self.process.stdout.close()


def each(server, programs):
    """Runs programs, a few at once, each with a database of its own; gives 0 if all ended with 0."""
    def run(program, url):
        return subprocess.run([program], check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              errors="replace", env={**os.environ, "WEIR_TEST_POSTGRES": url})

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        all_done = [pool.submit(run, program, server.url(server.new_database())) for program in programs]
    all_done = [one.result() for one in all_done]
    for done in all_done:
        print(f"== {pathlib.Path(done.args[0]).name}: ended with {done.returncode}\n{done.stdout}")
    broken = [done for done in all_done if done.returncode != 0]
    if broken:
        print(failures.CLOSING)
        print("\n".join(re.findall(r"^.*(?:deadlock|terminating|canceling|FATAL|PANIC).*$", server.log.read_text(),
                                   re.M)[-10:]))
    for done in broken:
        for line in failures.of_program(done.stdout):
            print(f"{pathlib.Path(done.args[0]).name}: {line}")
    return 1 if broken else 0


def main():
    server = Postgres()
    os.environ["WEIR_TEST_POSTGRES"] = server.url()
    try:
        if sys.argv[1] == "--each":
            return each(server, sys.argv[2:])
        return subprocess.run(sys.argv[1:], check=False).returncode
    finally:
        server.close()


if __name__ == "__main__":
    sys.exit(main())
