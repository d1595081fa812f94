"""What the reliability tests share: raw sockets, counting what is in the store, load in the background."""
import json
import re
import socket
import sqlite3
import subprocess
import time

from conftest import BINARY, RELEASED, postgres_server

WAIT_SECONDS = 60
SLOWER = 1 if RELEASED else 6


def until(check, seconds=WAIT_SECONDS):
    """Polls until `check()` gives something true, and gives it; fails with its last value. The longer it takes, the more
    rarely it looks: a question costs both the server and us."""
    start = time.monotonic()
    deadline = start + seconds * SLOWER
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < deadline, f"still {value!r} after {seconds} s"
        time.sleep(min(max(0.01, (time.monotonic() - start) / 20), 0.2))


def event(number, kind="test.event", **more):
    return {"type": kind, "dedup_id": f"d{number}", "payload": {"number": number}, **more}


def post(server, number, kind="test.event", **more):
    """Posts one event and gives its id; anything but 202 fails."""
    answer = server.post("/api/events", event(number, kind, **more))
    assert answer.status == 202, answer
    return answer.json["id"]


def events(server, query="", key=True):
    """Every event of the org, oldest first, page by page."""
    found, cursor = [], ""
    while True:
        answer = server.get(f"/api/v1/events?limit=1000&order=asc{query}{cursor}", key=key)
        assert answer.status == 200, answer
        found += answer.json["events"]
        if answer.json["next_cursor"] is None:
            return found
        cursor = "&cursor=" + answer.json["next_cursor"]


def metric(server, name):
    found = re.search(rf"^{re.escape(name)} (\S+)$", server.get("/metrics").body.decode(), re.M)
    assert found, name
    return float(found.group(1))


def is_small(taken, most):
    """Whether the released program takes less than `most` of memory; of another there is no bound."""
    return taken < most or not RELEASED


def drained(server):
    """Until everything acknowledged is in the store."""
    until(lambda: metric(server, "event_queue_size") == 0)


def raw(server, *parts, timeout=60, shut=False):
    """Sends bytes as they are and gives everything that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=timeout) as one:
        for part in parts:
            try:
                one.sendall(part)
            except (BrokenPipeError, ConnectionResetError):
                break
        if shut:
            one.shutdown(socket.SHUT_WR)
        return read_all(one)


def read_all(one):
    got = b""
    while True:
        try:
            part = one.recv(65536)
        except ConnectionResetError:
            return got
        if not part:
            return got
        got += part


def read_answer(one):
    """One answer with Content-Length from a socket: status, head, body."""
    got = b""
    while b"\r\n\r\n" not in got:
        part = one.recv(65536)
        assert part, f"closed after {got!r}"
        got += part
    head, _, body = got.partition(b"\r\n\r\n")
    length = int(re.search(rb"(?i)content-length: (\d+)", head).group(1))
    while len(body) < length:
        part = one.recv(65536)
        assert part, "closed within the body"
        body += part
    return int(head.split()[1]), head, body


def head(server, method="POST", path="/api/events", close=True, key=True, **headers):
    """A request head; `name_of` becomes Name-Of."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{server.port}"]
    if key:
        lines.append(f"X-API-Key: {server.key}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if close:
        lines.append("Connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def status_of(answer):
    assert answer.startswith(b"HTTP/1.1 "), answer[:200]
    return int(answer.split()[1])


def problem_of(answer):
    """The problem of a raw answer."""
    found, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in found, answer[:500]
    return json.loads(body)


def check_problem(answer, status, code):
    """An error as API.md has it; gives the problem."""
    assert answer.status == status, answer
    assert answer.headers["content-type"].startswith("application/problem+json"), answer.headers
    problem = answer.json
    assert problem["status"] == status and problem["code"] == code, problem
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert {"type", "title"} <= set(problem)
    return problem


def start_load(server, **options):
    """`weir bench` in the background, as a process of ours."""
    return subprocess.Popen(load_words(server, **options), stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def load_words(server, **options):
    words = [str(BINARY), "bench", "--json", "--url", server.url, "--key", server.key]
    for name, value in options.items():
        words += ["--" + name] if value is True else ["--" + name, str(value)]
    return words


def end_load(process):
    """Waits for a load; its numbers."""
    out, err = process.communicate(timeout=120)
    assert out.strip(), err
    return json.loads(out)


def audit(server, ids):
    """Each acknowledged id must be in the store exactly once; gives how many there are."""
    drained(server)
    done = subprocess.run([str(BINARY), "bench", "--url", server.url, "--key", server.key,
                           "--ids", str(ids), "--audit"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return int(re.match(r"acknowledged (\d+)", done.stdout).group(1))


def hold_database(server):
    """Another process's write lock on the database: what is there can be read."""
    if server.settings.get("DATABASE_URL", "").startswith("postgresql:"):
        return postgres_server.Lock(server.settings["DATABASE_URL"])
    lock = sqlite3.connect(server.data_dir / "weir.db", timeout=30, isolation_level=None, check_same_thread=False)
    lock.execute("BEGIN EXCLUSIVE")
    return lock
