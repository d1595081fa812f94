"""Promise: slow, idle and hostile clients are answered or closed as documented, cost little, and others are
served meanwhile (R8)."""
import gzip
import json
import pathlib
import re
import resource
import socket
import threading

import brotli
import pytest
import zstandard

from black_box import (check_problem, event, events, head, is_small, metric, post, problem_of, raw, read_all, read_answer,
                       status_of, until)

IDLE_CONNECTIONS = 10000


@pytest.fixture
def impatient(weir):
    """A server whose timeouts are short, so that the tests meet them."""
    return weir(HTTP_HEAD_TIMEOUT=1, HTTP_RATE_GRACE=1, HTTP_IDLE_TIMEOUT=60, HTTP_CONNECTIONS_MAX=20000,
                HTTP_CONNECTIONS_PER_ADDRESS=20000)


class Others:
    """A well-behaved client that posts without end in the background; each of its posts must be taken."""

    def __init__(self, server):
        self.server = server
        self.ids = []
        self.stopping = threading.Event()
        self.error = None
        self.thread = threading.Thread(target=self.run)

    def run(self):
        try:
            while not self.stopping.is_set():
                self.ids.append(post(self.server, f"other-{len(self.ids)}", "other"))
        except BaseException as error:  # told to the test by __exit__
            self.error = error

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, kind, *_):
        self.stopping.set()
        self.thread.join()
        if kind is None:
            if self.error is not None:
                raise self.error
            assert len(set(self.ids)) == len(self.ids) > 0


def drip(one, text, answers):
    """One byte a second until the server answers or closes; what it said."""
    one.settimeout(1)
    for byte in text:
        try:
            one.sendall(bytes([byte]))
            got = one.recv(65536)
        except socket.timeout:
            continue
        except (BrokenPipeError, ConnectionResetError):
            answers.append(b"")
            return
        one.settimeout(30)
        answers.append(got + read_all(one) if got else b"")
        return
    raise AssertionError("the server waited for ever")


def test_one_byte_a_second_is_answered_408_and_closed(impatient):
    text = json.dumps(event(1)).encode()
    slow_head = (head(impatient, Content_Type="application/json", Content_Length=len(text)) + text)
    slow_body = head(impatient, Content_Type="application/json", Content_Length=100000)
    answers = []
    with Others(impatient):
        threads = []
        for begin, rest in ((b"", slow_head), (slow_body, b"{" + b" " * 1000)):
            for _ in range(20):
                one = socket.create_connection(("127.0.0.1", impatient.port))
                one.sendall(begin)
                threads.append(threading.Thread(target=drip, args=(one, rest, answers)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(answers) == 40
    for answer in answers:
        assert status_of(answer) == 408 and problem_of(answer)["code"] == "request_timeout"
    assert metric(impatient, "http_timeouts_total") >= 40
    assert all(one["type"] == "other" for one in events(impatient))


def test_a_reader_that_does_not_read_is_closed(impatient):
    for number in range(60):
        post(impatient, number, payload={"pad": "x" * 200000})
    impatient.get("/api/v1/events?limit=1&wait_for=" + impatient.post(
        "/api/events", event("last")).json["position"])
    before = metric(impatient, "http_timeouts_total")
    with Others(impatient):
        stuck = []
        for _ in range(5):
            one = socket.socket()
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            one.connect(("127.0.0.1", impatient.port))
            one.sendall(b"".join(head(impatient, "GET", "/api/v1/events?limit=60&order=asc", close=False) for _ in range(8)))
            stuck.append(one)
        until(lambda: metric(impatient, "http_timeouts_total") >= before + 5)
        for one in stuck:
            one.close()


def open_idle(port, count):
    """Connections that say nothing; spread over loopback addresses, so that ports do not run out."""
    made = []
    for number in range(count):
        one = socket.socket()
        one.bind((f"127.0.0.{2 + number % 4}", 0))
        one.connect(("127.0.0.1", port))
        made.append(one)
    return made


def resident_kb(server):
    text = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", text).group(1))


def test_ten_thousand_idle_connections_cost_little_and_others_are_served(impatient):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    made = []
    try:
        post(impatient, "before")
        before = resident_kb(impatient)
        made = open_idle(impatient.port, IDLE_CONNECTIONS)
        until(lambda: metric(impatient, "http_open_connections") >= IDLE_CONNECTIONS)
        assert is_small(resident_kb(impatient) - before, 24 * 1024)
        with Others(impatient):
            for one in made[:: IDLE_CONNECTIONS // 100]:
                one.sendall(head(impatient, "GET", "/health/live", close=False))
                assert read_answer(one)[0] == 200
    finally:
        for one in made:
            one.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    until(lambda: metric(impatient, "http_open_connections") < 100)


def test_connections_above_the_limit_are_closed_and_the_rest_goes_on(weir):
    server = weir(HTTP_CONNECTIONS_PER_ADDRESS=16)
    made = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(16)]
    until(lambda: raw_or_closed(server) == b"")
    made[0].sendall(head(server, "GET", "/health/live", close=False))
    assert read_answer(made[0])[0] == 200
    for one in made:
        one.close()
    until(lambda: status_of(raw_or_closed(server) or b"HTTP/1.1 000") == 200)
    assert metric(server, "http_connections_refused_total") >= 1


def raw_or_closed(server):
    return raw(server, head(server, "GET", "/health/live"))


def test_head_bombs(server):
    many = {f"X_Many_{number}": "x" for number in range(1000)}
    endless = head(server, "GET", "/health/live", close=False)[:-2] + b"X-Endless: " + b"x" * 2000000
    for text, status in ((head(server, "GET", "/health/live", **many), 431), (endless, 431),
                         (head(server, "GET", "/" + "a" * 100000), 414)):
        assert status_of(raw(server, text)) == status
    post(server, "after head bombs")


def test_an_endless_body_is_refused_at_the_limit(server):
    chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
    text = head(server, Content_Type="application/json", Transfer_Encoding="chunked")
    answer = raw(server, text, b'8\r\n{"type":\r\n', *([chunk] * 400))
    assert status_of(answer) == 413 and problem_of(answer)["code"] == "payload_too_large"
    # The same with a length that nobody has: what is too much is too much as soon as it is there.
    text = head(server, Content_Type="application/json", Content_Length=1 << 40)
    answer = raw(server, text, b'{"type":', *([b" " * 65536] * 400))
    assert status_of(answer) == 413 and problem_of(answer)["code"] == "payload_too_large"
    post(server, "after body bombs")


BOMB = b'{"type":"bomb","payload":"' + b"0" * (64 << 20) + b'"}'
LINES_BOMB = b'{"type":"bomb","payload":"' + b"0" * 200000 + b'"}\n'


@pytest.mark.parametrize("coding, compress", [
    ("gzip", lambda text: gzip.compress(text, 9)),
    ("br", lambda text: brotli.compress(text, quality=5)),
    ("zstd", lambda text: zstandard.ZstdCompressor(level=9).compress(text)),
], ids=["gzip", "br", "zstd"])
def test_compressed_bombs(server, coding, compress):
    headers = {"Content-Encoding": coding, "Content-Type": "application/json"}
    answer = server.post("/api/events", compress(BOMB), headers=headers)
    check_problem(answer, 413, "payload_too_large")
    # A batch may have any size, so here the ratio is what refuses it.
    answer = server.post("/api/events/batch", compress(LINES_BOMB * 400),
                         headers={"Content-Encoding": coding, "Content-Type": "application/x-ndjson"})
    check_problem(answer, 413, "payload_too_large")
    small = compress(json.dumps(event(coding)).encode())
    assert server.post("/api/events", small, headers=headers).status == 202
    assert not [one for one in events(server) if one["type"] == "bomb"]
    peak = re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{server.process.pid}/status").read_text())
    assert is_small(int(peak.group(1)), 128 * 1024)


def test_json_a_hundred_deep(server):
    deep = '{"type":"deep","payload":' + "[" * 99 + "]" * 99 + "}"
    check_problem(server.post("/api/events", deep, headers={"Content-Type": "application/json"}), 400, "too_deep")
    check_problem(server.post("/api/events/batch", deep + "\n", headers={"Content-Type": "application/x-ndjson"}),
                  400, "too_deep")
    post(server, "after deep")
