"""Promise: a live tail gives every event after its place once, in commit order, and resumes without a gap."""
import json
import pathlib
import re
import socket
import threading

import pytest

from black_box import is_small, read_all, until

READ_SECONDS = 30


class Tail:
    """One subscriber on a raw socket."""

    def __init__(self, server, last=None, query="", key=None, receive_buffer=None):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(READ_SECONDS)
        self.socket.connect(("127.0.0.1", server.port))
        head = f"GET /api/v1/events/stream{query} HTTP/1.0\r\nHost: x\r\nX-API-Key: {key or server.key}\r\n"
        head += f"Last-Event-ID: {last}\r\n" if last else ""
        self.socket.sendall((head + "\r\n").encode())
        self.bytes = b""
        self.status = int(self.until(b"\r\n\r\n").split(b" ", 2)[1])
        self.last = last

    def until(self, mark):
        while mark not in self.bytes:
            got = self.socket.recv(65536)
            if not got:
                raise EOFError(self.bytes)
            self.bytes += got
        found, self.bytes = self.bytes.split(mark, 1)
        return found

    def next(self):
        """The next event, past comments."""
        while True:
            fields = dict(line.split(b": ", 1) for line in self.until(b"\n\n").split(b"\n") if not
                          line.startswith(b":"))
            if b"data" in fields:
                self.last = fields[b"id"].decode()
                return json.loads(fields[b"data"])

    def __enter__(self):
        self.until(b"retry: 1000\n\n")
        return self

    def __exit__(self, *_):
        self.socket.close()


def send(server, payload, kind="s", key=True, **more):
    return server.post("/api/events", {"type": kind, "payload": payload, **more}, key=key).json


def test_live_events_in_order(server):
    server.wait_applied(send(server, "before")["position"])
    with Tail(server) as tail:
        assert tail.status == 200
        ids = [send(server, n)["id"] for n in range(20)]
        got = [tail.next() for _ in range(20)]
        assert [e["payload"] for e in got] == list(range(20)) and [e["id"] for e in got] == ids
        assert set(got[0]) >= {"type", "event_type", "created_at", "delivery_status"}


def test_head_is_over_at_once(server):
    """It is the head of the stream alone, so the next request on the connection is answered."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=READ_SECONDS) as one:
        request = f"HTTP/1.1\r\nHost: x\r\nX-API-Key: {server.key}\r\n"
        one.sendall(f"HEAD /api/v1/events/stream {request}\r\n"
                    f"GET /health/live {request}Connection: close\r\n\r\n".encode())
        stream, live, _ = read_all(one).split(b"\r\n\r\n")
    assert stream.startswith(b"HTTP/1.1 200 ") and b"text/event-stream" in stream
    assert live.startswith(b"HTTP/1.1 200 ")
    until(lambda: metric(server, "event_stream_subscribers") == 0)


def test_resume_without_a_gap(server):
    with Tail(server) as tail:
        send(server, "first")
        tail.next()
        last = tail.last
    for n in range(300):
        send(server, n)
    with Tail(server, last) as tail:
        assert [tail.next()["payload"] for _ in range(300)] == list(range(300))
        send(server, "live again")
        assert tail.next()["payload"] == "live again"
    with Tail(server, query=f"?last_event_id={last}") as tail:
        assert tail.next()["payload"] == 0


def test_many_pages(server):
    with Tail(server) as tail:
        send(server, "mark")
        tail.next()
        last = tail.last
    sent = [{"type": "s", "payload": {"n": n, "pad": "y" * 200}} for n in range(5000)]
    body = "".join(json.dumps(e) + "\n" for e in sent).encode()
    assert server.post("/api/events/batch?wait=stored", body,
                       headers={"Content-Type": "application/x-ndjson"}).status == 201
    with Tail(server, last) as tail:
        assert [tail.next()["payload"]["n"] for _ in range(5000)] == list(range(5000))


def test_several_subscribers_on_every_loop(server):
    tails = [Tail(server).__enter__() for _ in range(6)]
    ids = [send(server, n)["id"] for n in range(5)]
    for tail in tails:
        assert [tail.next()["id"] for _ in range(5)] == ids
        tail.socket.close()


def test_filters(server):
    with Tail(server, query="?type=wanted&subject=me") as tail:
        send(server, 1, "wanted")
        send(server, 2, "other", subject="me")
        send(server, 3, "wanted", subject="me")
        assert tail.next()["payload"] == 3


def test_org_isolation(server):
    other = server.new_org("stream-other")
    with Tail(server) as mine, Tail(server, key=other) as theirs:
        send(server, "mine")
        send(server, "theirs", key=other)
        assert mine.next()["payload"] == "mine" and theirs.next()["payload"] == "theirs"
        assert Tail(server, mine.last, key=other).status == 400


@pytest.mark.parametrize("last", ["x", "0", "AAAAAAAAAAAAAAAAAA"])
def test_malformed_place(server, last):
    assert Tail(server, last).status == 400


def test_needs_a_key_with_read(server):
    writer = server.post("/api/keys", {"scopes": ["write"]}).json["api_key"]
    assert Tail(server, key=writer).status == 403
    assert Tail(server, key="weir_no").status == 401


def test_a_revoked_key_gets_nothing_more(server):
    key = server.post("/api/keys", {"scopes": ["read"]}).json
    with Tail(server, key=key["api_key"]) as tail:
        send(server, "seen")
        assert tail.next()["payload"] == "seen"
        assert server.request("DELETE", f"/api/keys/{key['id']}").status == 204
        send(server, "not seen")
        with pytest.raises(EOFError) as end:
            tail.next()
        assert b"not seen" not in end.value.args[0]


@pytest.mark.seconds(16)
def test_a_subscriber_that_does_not_read_is_cut_and_resumes(server):
    tail = Tail(server, receive_buffer=4096).__enter__()
    send(server, "mark")
    tail.next()
    last = tail.last
    body = "".join(json.dumps({"type": "s", "payload": {"n": n, "pad": "z" * 2000}}) + "\n"
                   for n in range(10000)).encode()
    for _ in range(2):
        assert server.post("/api/events/batch?wait=stored", body,
                           headers={"Content-Type": "application/x-ndjson"}).status == 201
    open_tails = 'event_stream_subscribers '
    until(lambda: open_tails + "0\n" in server.get("/metrics").body.decode())
    tail.socket.close()
    with Tail(server, last) as again:
        assert [again.next()["payload"]["n"] for _ in range(100)] == list(range(100))


def metric(server, name):
    text = server.get("/metrics").body.decode()
    return int(re.search(rf"^{re.escape(name)} (\d+)", text, re.M)[1])


def resident_kb(server):
    status = pathlib.Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1])


def fill(server, count, bytes_):
    """Stores so many events; gives the place before the first."""
    with Tail(server) as tail:
        send(server, "mark")
        tail.next()
        last = tail.last
    line = json.dumps({"type": "s", "payload": "z" * bytes_}) + "\n"
    assert server.post("/api/events/batch?wait=stored", line * count,
                       headers={"Content-Type": "application/x-ndjson"}).status == 201
    return last


@pytest.mark.seconds(8)
def test_many_that_do_not_read_hold_little_and_are_cut(weir):
    """250 subscribers that never read cost 25 MiB at most: 64 KiB for a page, 16 KiB for the rest, and what the
    allocator keeps. (Before pages were bounded: 100 MiB.)"""
    server = weir()
    last = fill(server, 2000, 4000)
    with Tail(server, last) as tail:  # the readers' buffers are warm
        for _ in range(2000):
            tail.next()
    before, most = resident_kb(server), 0
    stuck = [Tail(server, last, receive_buffer=4096) for _ in range(250)]
    with Tail(server) as live:
        n = 0
        while metric(server, "event_stream_subscribers") > 1:
            most = max(most, resident_kb(server) - before)
            send(server, n)
            assert live.next()["payload"] == n  # nobody else waits for them
            n += 1
    assert is_small(most, 25 * 1024), most
    assert metric(server, 'event_streams_cut_total{reason="slow"}') == 250
    for one in stuck:
        one.socket.close()


@pytest.mark.seconds(15)
def test_the_pages_of_all_streams_are_bounded(weir):
    """200 pages of one large event each would be 60 MiB; those that wait for longest go above 32 MiB."""
    server = weir()
    last = fill(server, 40, 250_000)
    with Tail(server, last) as tail:
        for _ in range(40):
            tail.next()
    before, most = resident_kb(server), 0
    stuck = [Tail(server, last, receive_buffer=4096) for _ in range(200)]
    while metric(server, "event_stream_subscribers") > 0:
        most = max(most, resident_kb(server) - before)
    assert is_small(most, 50 * 1024), most
    cut = [metric(server, f'event_streams_cut_total{{reason="{reason}"}}') for reason in ("memory", "slow")]
    assert sum(cut) == 200
    with Tail(server, last) as tail:
        assert len(tail.next()["payload"]) == 250_000
    for one in stuck:
        one.socket.close()


def test_a_subscriber_that_reads_slowly_is_not_cut(server):
    """Half a page in a stall's time: slower than the bound for those that do not read at all."""
    last = fill(server, 30, 4000)
    with Tail(server, last, receive_buffer=4096) as tail:
        for n in range(30):
            assert tail.next()["payload"] == "z" * 4000


def test_a_drain_ends_streams(weir):
    server = weir()
    with Tail(server) as tail:
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        with pytest.raises(EOFError):
            tail.next()
        stopping.join()
