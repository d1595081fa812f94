"""A NATS server with JetStream for tests, from Debian's package, in a temporary directory on a free port; and the
little of its protocol that tests need to look into it."""
import ctypes
import json
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
import urllib.parse

START_SECONDS = 30


def die_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def ask(url, subject, body=None):
    """One request to the server at `url`; the JSON that is answered."""
    at = urllib.parse.urlparse(url)
    data = b"" if body is None else json.dumps(body).encode()
    who = {"user": at.username, "pass": at.password} if at.username else {}
    hello = {"verbose": False, "pedantic": False, "name": "test", "lang": "python", "version": "1", **who}
    with socket.create_connection((at.hostname, at.port), timeout=10) as one:
        answers = one.makefile("rb")
        assert answers.readline().startswith(b"INFO ")
        one.sendall(b"CONNECT %s\r\nSUB answer 1\r\nPUB %s answer %d\r\n%s\r\n"
                    % (json.dumps(hello).encode(), subject.encode(), len(data), data))
        while True:
            line = answers.readline()
            if line.startswith(b"PING"):
                one.sendall(b"PONG\r\n")
            elif line.startswith(b"MSG "):
                return json.loads(answers.read(int(line.split()[-1])))
            elif not line or line.startswith(b"-ERR"):
                raise OSError(line)


def messages(folder):
    """What the files of a stream hold, by number. A record is its size (top bit: it has headers), the number (top bit:
    it was erased), the time and the size of the subject; then subject, headers with their size, message, checksum."""
    found = {}
    for block in sorted(folder.glob("*.blk"), key=lambda path: int(path.stem)):
        data, at = block.read_bytes(), 0
        while at + 30 <= len(data):
            size, number, _, subject = struct.unpack_from("<IQqH", data, at)
            body = at + 22 + subject
            if size >> 31:
                size &= 0x7fffffff
                body += 4 + struct.unpack_from("<I", data, body)[0]
            if size < 30 or at + size > len(data):
                break
            if not number >> 63:
                found[number] = data[body:at + size - 8]
            at += size
    return found


class Nats:
    """One server. It may be stopped, paused and started again on the same port, with what it has stored."""

    def __init__(self, user=None, password=None, jetstream=True, more=()):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="weir-nats-"))
        self.port = free_port()
        self.credentials = {"user": user, "pass": password} if user else {}
        self.jetstream = jetstream
        self.more = list(more)
        self.process = None
        self.start()

    @property
    def url(self):
        who = "{user}:{pass}@".format(**self.credentials) if self.credentials else ""
        return f"nats://{who}127.0.0.1:{self.port}"

    def words(self):
        words = ["nats-server", "-a", "127.0.0.1", "-p", str(self.port), *self.more]
        if self.jetstream:
            words += ["-js", "-sd", str(self.folder / "store")]
        if self.credentials:
            words += ["--user", self.credentials["user"], "--pass", self.credentials["pass"]]
        return words

    def start(self):
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(self.words(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env={"PATH": os.environ["PATH"]}, preexec_fn=die_with_parent)
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert self.process.poll() is None, (self.folder / "log").read_text()
            try:
                if not self.jetstream or self.more or "error" not in self.ask("$JS.API.INFO"):
                    return self
            except OSError:
                pass
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.02)

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        """At once, as a crash."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def close(self):
        self.kill()
        shutil.rmtree(self.folder)

    def ask(self, subject, body=None):
        return ask(self.url, subject, body)

    def stream(self, name="weir"):
        return self.ask("$JS.API.STREAM.INFO." + name)

    def make_stream(self, name="weir", subject="weir.frames.*", **config):
        """As the journal makes it, but for what is given."""
        whole = {"name": name, "subjects": [subject], "retention": "limits", "max_consumers": -1,
                 "max_msgs": -1, "max_bytes": -1, "max_age": 0, "max_msgs_per_subject": -1, "max_msg_size": -1,
                 "discard": "new", "storage": "file", "num_replicas": 1, "duplicate_window": 120_000_000_000, **config}
        answer = self.ask("$JS.API.STREAM.CREATE." + name, whole)
        assert "error" not in answer, answer

    def delete_stream(self, name="weir"):
        assert self.ask("$JS.API.STREAM.DELETE." + name)["success"]


class Cluster:
    """Three servers that hold each stream three times."""

    def __init__(self):
        ports = [free_port() for _ in range(3)]
        routes = ",".join(f"nats://127.0.0.1:{port}" for port in ports)
        self.servers = []
        for number, port in enumerate(ports):
            self.servers.append(Nats(more=["--name", f"nats-{number}", "--cluster_name", "test", "--cluster",
                                           f"nats://127.0.0.1:{port}", "--routes", routes]))
        self.wait(lambda: "error" not in self.servers[0].ask("$JS.API.INFO"))

    @property
    def url(self):
        return ",".join(one.url for one in self.servers)

    def wait(self, check):
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                if check():
                    return
            except (OSError, KeyError):  # it has no leader yet
                pass
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def is_whole(self, stream):
        """Each of the three has all of it."""
        cluster = self.servers[0].stream(stream)["cluster"]
        return bool(cluster["leader"]) and [one["current"] for one in cluster["replicas"]] == [True, True]

    def wait_until_whole(self, *streams):
        self.wait(lambda: all(self.is_whole(one) for one in streams))

    def differences(self, stream):
        """What the three servers' copies of a stream hold, and where they are not the same, as lines."""
        copies = [messages(one.folder / "store/jetstream/$G/streams" / stream / "msgs") for one in self.servers]
        for name, copy in zip("012", copies):
            others = [set(other.values()) for other in copies if other is not copy]
            lacks = len((others[0] | others[1]) - set(copy.values()))
            yield (f"{stream}: copy {name} has {len(copy)} messages, {min(copy, default=0)} to {max(copy, default=0)}, and lacks "
                   f"{lacks} of the others'")
        first = max(min(copy, default=0) for copy in copies)
        differ = [number for number in sorted(set().union(*copies))
                  if number >= first and len({copy.get(number) for copy in copies}) > 1]
        yield f"{stream}: {len(differ)} numbers mean different messages, {differ[:3]} to {differ[-3:]}"

    def close(self):
        for one in self.servers:
            one.close()
