"""Promise: whatever bytes come, our parser never frames requests differently from the ones that stand in
front of it: it agrees with Node's http server and with nginx, or refuses and closes.

Each file of smuggling/ is one stream. Its first line says what we do with it:

    # accept: why             every request of the stream is answered, and the one that is sent after it
    # accept end: why         every request is answered, then the connection ends
    # refuse STATUS: why      the last answer is this status, and the connection closes
    # refuse EOF: why         the stream ends inside a request: no answer to it

The rest is the stream: line ends of the file do not count, \\r \\n \\t \\xHH \\\\ do.
"""
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess

import pytest

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
ECHO = pathlib.Path(os.environ.get("WEIR_HTTP_ECHO", ROOT / "build/release/http_echo"))
STREAMS = sorted((HERE / "smuggling").glob("*.txt"))
LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
WAIT_SECONDS = 20

NGINX = """
daemon off;
worker_processes 1;
pid {dir}/nginx.pid;
error_log {dir}/error.log crit;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {dir}/body;
  proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi;
  scgi_temp_path {dir}/scgi;
  server {{
    listen 127.0.0.1:{port};
    location / {{ return 200 "$request_method $request_uri $content_length\\n"; }}
  }}
}}
"""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def stop(process):
    process.send_signal(signal.SIGTERM)
    process.wait(WAIT_SECONDS)


def start_printing(command):
    """A server that prints its port on its first line."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    return process, int(process.stdout.readline())


@pytest.fixture(scope="module")
def ours():
    process, port = start_printing([ECHO])
    yield port
    stop(process)
    assert process.returncode == 0


@pytest.fixture(scope="module")
def node():
    process, port = start_printing(["node", HERE / "support/echo_node.js"])
    yield port
    stop(process)


def connect_when_listening(port, process):
    """nginx says nowhere that it listens: the port is tried until it answers."""
    while process.poll() is None:
        try:
            return socket.create_connection(("127.0.0.1", port), WAIT_SECONDS).close()
        except ConnectionRefusedError:
            continue
    raise AssertionError("nginx ended")


@pytest.fixture(scope="module")
def nginx(tmp_path_factory):
    directory = tmp_path_factory.mktemp("nginx")
    directory.chmod(0o777)  # its worker may be another user
    port = free_port()
    (directory / "nginx.conf").write_text(NGINX.format(dir=directory, port=port))
    binary = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
    process = subprocess.Popen([binary, "-p", directory, "-c", directory / "nginx.conf"], stderr=subprocess.DEVNULL)
    connect_when_listening(port, process)
    yield port
    stop(process)


def read_stream(path):
    first, _, rest = path.read_text().partition("\n")
    verdict = re.fullmatch(r"# (accept|accept end|refuse (?:\d{3}|EOF)): .+", first).group(1)
    text = rest.replace("\n", "")
    stream = re.sub(r"\\(?:x([0-9a-f]{2})|(.))",
                    lambda found: chr(int(found[1], 16)) if found[1] else {"r": "\r", "n": "\n", "t": "\t"}.get(found[2], found[2]),
                    text)
    return verdict, stream.encode("latin-1")


def exchange(port, stream):
    """Sends all, ends the writing side, gives all that comes back."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), WAIT_SECONDS) as one:
        try:
            one.sendall(stream)
            one.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it refused before everything was sent
        try:
            while chunk := one.recv(65536):
                answer += chunk
        except ConnectionResetError:
            pass
    return answer


def cut_chunks(rest):
    body = b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        size = int(size, 16)
        body, rest = body + rest[:size], rest[size + 2:]
        if size == 0:
            return body, rest


def answers(received):
    """Each answer as (status, "METHOD path" that it echoes, closes); those of 1xx are left out."""
    found = []
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        line = re.match(rb"HTTP/1\.1 (\d{3})", head)
        if line is None:
            return found + [(0, "", True)]  # HTTP/0.9, which nginx still speaks
        status = int(line.group(1))
        if status < 200:
            continue
        length = re.search(rb"\r\nContent-Length: (\d+)", head, re.I)
        if length:
            size = int(length.group(1))
            body, received = received[:size], received[size:]
        elif re.search(rb"\r\nTransfer-Encoding: chunked", head, re.I):
            body, received = cut_chunks(received)
        else:
            body, received = received, b""
        echoed = body.decode("latin-1").split(" ")
        target = re.sub(r"^https?://[^/]*", "", echoed[1]) if status == 200 else ""
        found.append((status, f"{echoed[0]} {target}" if status == 200 else "",
                      re.search(rb"\r\nConnection: close", head, re.I) is not None))
    return found


def requests_taken(found):
    """The requests that a server framed and answered, up to its first refusal."""
    taken = []
    for status, echoed, _ in found:
        if status != 200:
            break
        taken.append(echoed)
    return taken


def check_verdict(verdict, found):
    taken = requests_taken(found)
    if verdict == "accept":
        assert len(taken) == len(found) and taken[-1] == "GET /last"
    elif verdict == "accept end":
        assert len(taken) == len(found) and "GET /last" not in taken
    elif verdict == "refuse EOF":
        assert len(taken) == len(found) == 0
    else:
        status, _, closes = found[-1]
        assert status == int(verdict.split()[1])
        assert closes
    assert "GET /smuggled" not in taken


@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.stem)
def test_stream(path, ours, node, nginx):
    verdict, stream = read_stream(path)
    found = answers(exchange(ours, stream + LAST))
    check_verdict(verdict, found)
    taken = requests_taken(found)
    for port in (node, nginx):
        theirs = requests_taken(answers(exchange(port, stream + LAST)))
        if verdict == "accept":
            assert theirs == taken
        elif verdict == "accept end":
            assert theirs == taken[:len(theirs)]  # Node refuses bytes after the end, we do not read them
        else:
            assert theirs[:len(taken)] == taken


def test_set_is_complete():
    """At least 80 streams, of both kinds."""
    verdicts = [read_stream(path)[0] for path in STREAMS]
    assert len(verdicts) >= 80
    assert any(verdict == "accept" for verdict in verdicts)
    assert any(verdict.startswith("refuse") for verdict in verdicts)


def test_cut_streams_are_framed_the_same(ours):
    """The same bytes in many segments give the same answers (the twin of one segment)."""
    for path in STREAMS[::7]:
        verdict, stream = read_stream(path)
        whole = answers(exchange(ours, stream + LAST))
        received = b""
        with socket.create_connection(("127.0.0.1", ours), WAIT_SECONDS) as one:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                for at in range(0, len(stream + LAST), 3):
                    one.sendall((stream + LAST)[at:at + 3])
                one.shutdown(socket.SHUT_WR)
                while chunk := one.recv(65536):
                    received += chunk
            except OSError:
                continue  # refused and closed while we were sending: seen above
        assert answers(received) == whole, path.stem
