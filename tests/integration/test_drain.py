"""Promise: SIGTERM lets open requests finish, turns ready to 503, refuses new work, and loses nothing."""
import json
import signal
import socket
import threading

from black_box import (audit, drained, end_load, event, events, head, metric, post, problem_of, read_all, read_answer,
                       start_load, status_of, until)


def connect(server):
    return socket.create_connection(("127.0.0.1", server.port), timeout=60)


def terminate(server):
    server.process.send_signal(signal.SIGTERM)
    until(lambda: any("draining" in line for line in server.log))


def test_an_open_request_finishes_and_is_kept(weir):
    server = weir()
    text = json.dumps(event("last")).encode()
    one = connect(server)
    one.sendall(head(server, close=False, Content_Type="application/json", Content_Length=len(text)) + text[:10])
    asking = connect(server)
    request = head(server, "GET", "/health/ready", close=False)
    asking.sendall(request[:10])
    until(lambda: server.get("/health/live", key=None).status == 200)  # both are open by now
    terminate(server)
    asking.sendall(request[10:])
    answer = read_all(asking)
    assert status_of(answer) == 503 and b'"draining"' in answer and b"connection: close" in answer.lower()
    one.sendall(text[10:])
    answer = read_all(one)
    assert status_of(answer) == 202 and b"connection: close" in answer.lower()
    assert server.process.wait(60) == 0
    server.stop()
    server.start()
    drained(server)
    assert [found["dedup_id"] for found in events(server)] == ["dlast"]


def test_new_requests_are_refused_while_draining(weir):
    server = weir()
    one = connect(server)
    one.sendall(head(server, close=False, Content_Type="application/json", Content_Length=100) + b"{")
    late = connect(server)
    text = json.dumps(event("late")).encode()
    request = head(server, close=False, Content_Type="application/json", Content_Length=len(text)) + text
    late.sendall(request[:10])
    until(lambda: server.get("/health/live", key=None).status == 200)
    terminate(server)
    late.sendall(request[10:])
    answer = read_all(late)
    # Begun before the signal: either taken, or refused as draining; never left without an answer.
    assert status_of(answer) == 202 or (status_of(answer) == 503 and problem_of(answer)["code"] == "draining")
    one.close()
    assert server.process.wait(60) == 0


def test_idle_connections_are_closed_and_do_not_hold_the_end_up(weir):
    server = weir(DRAIN_TIMEOUT=600)
    idle = [connect(server) for _ in range(50)]
    used = connect(server)
    used.sendall(head(server, "GET", "/health/live", close=False))
    assert read_answer(used)[0] == 200
    assert server.stop() == 0
    assert read_all(used) == b"" and all(read_all(one) == b"" for one in idle)


def test_a_request_that_never_ends_is_cut_at_the_drain_timeout(weir):
    server = weir(DRAIN_TIMEOUT=0.5, HTTP_RATE_GRACE=600, HTTP_HEAD_TIMEOUT=600)
    one = connect(server)
    one.sendall(head(server, close=False, Content_Type="application/json", Content_Length=100) + b"{")
    post(server, 1)
    assert server.stop() == 0
    read_all(one)
    server.start()
    drained(server)
    assert len(events(server)) == 1


def test_with_a_delay_a_balancer_hears_of_it_before_anything_closes(weir):
    server = weir(DRAIN_DELAY=600)
    one = connect(server)
    one.sendall(head(server, "GET", "/health/ready", close=False))
    assert read_answer(one)[0] == 200
    terminate(server)
    until(lambda: server.get("/health/ready", key=None).status == 503)
    assert server.get("/health/ready", key=None).json["status"] == "draining"
    assert server.get("/health/intake", key=None).status == 503
    # All is served, on connections old and new; each answer sends its client away.
    one.sendall(head(server, "GET", "/health/live", close=False))
    answer = read_all(one)
    assert status_of(answer) == 200 and b"connection: close" in answer.lower()
    post(server, 1)
    assert server.stop() == 0  # a second signal does not wait
    server.start()
    drained(server)
    assert len(events(server)) == 1


def test_a_live_tail_does_not_hold_the_end_up(weir):
    server = weir()
    one = connect(server)
    one.sendall(head(server, "GET", "/api/v1/events/stream", close=False))
    assert one.recv(65536).startswith(b"HTTP/1.1 200")
    reader = threading.Thread(target=read_all, args=(one,))
    reader.start()
    assert server.stop() == 0
    reader.join()


def test_sigterm_under_load_loses_nothing(weir, tmp_path):
    server = weir()
    for number in range(3):
        load = start_load(server, connections=64, seconds=30, ids=tmp_path / "ids")
        until(lambda: (tmp_path / "ids").exists() and (tmp_path / "ids").stat().st_size > 100000 * (number + 1))
        assert server.stop() == 0
        end_load(load)
        server.start()
    assert audit(server, tmp_path / "ids") > 0


def test_sigint_is_as_good(weir):
    server = weir()
    identity = post(server, 1)
    assert server.stop(signal.SIGINT) == 0
    server.start()
    drained(server)
    assert [one["id"] for one in events(server)] == [identity]


def test_who_waits_for_the_store_is_answered_before_the_cut(weir):
    server = weir(DRAIN_TIMEOUT=4, APPLY_PAUSED=1)
    waiting = [connect(server) for _ in range(20)]
    for number, one in enumerate(waiting):
        text = json.dumps(event(number)).encode()
        one.sendall(head(server, path="/api/events?wait=stored", close=False, Content_Type="application/json",
                         Content_Length=len(text)) + text)
    position = server.post("/api/events", event("last")).json["position"]
    reading = connect(server)
    reading.sendall(head(server, "GET", f"/api/v1/events?wait_for={position}", close=False))
    until(lambda: metric(server, "event_queue_size") == 21)
    terminate(server)
    for one in waiting:
        answer = read_all(one)
        assert status_of(answer) == 202 and b'"durability"' in answer
    assert status_of(read_all(reading)) in (503, 504)
    assert server.process.wait(60) == 0
