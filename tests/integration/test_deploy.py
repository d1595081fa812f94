"""Promise: every file in deploy/ is one that its program takes, and requests, uploads and live tails pass the real
nginx and the real HAProxy with the examples as they are, but for addresses; also while nodes are restarted."""
import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import threading
import time
import urllib.parse

import pytest
import yaml

from black_box import drained, event, events, until
from conftest import BINARY, ROOT
from test_batch import NDJSON, lines
from test_batch import events as batch_events

DEPLOY = ROOT / "deploy"
NAME = "weir.example.com"


def run(*words, **more):
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=60, **more)


@pytest.fixture
def weir(weir):
    """On the embedded engines: what is tested stands in front of them."""
    return lambda **more: weir(**{"DATABASE_URL": "", **more})


# --- files ----------------------------------------------------------------------------------------------------------

def test_systemd_takes_the_unit(tmp_path):
    unit = (DEPLOY / "weir.service").read_text()
    text = unit.replace("ExecStart=/usr/bin/weir", f"ExecStart={BINARY}")
    (tmp_path / "weir.service").write_text(text)
    done = run("systemd-analyze", "verify", tmp_path / "weir.service")
    assert done.returncode == 0 and done.stderr == "", done.stderr
    (tmp_path / "weir.service").write_text(text.replace("ProtectSystem=strict", "ProtectSistem=strict"))
    assert "ProtectSistem" in run("systemd-analyze", "verify", tmp_path / "weir.service").stderr
    # What the exposure check of systemd itself calls safe enough: 0 is best, 10 is none.
    done = run("systemd-analyze", "security", "--offline=yes", "--threshold=30", DEPLOY / "weir.service")
    assert done.returncode == 0, done.stdout[-500:]


def test_prometheus_takes_the_rules_and_they_fire(tmp_path):
    for name in ("prometheus-rules.yaml", "prometheus-rules-test.yaml"):
        shutil.copy(DEPLOY / name, tmp_path)
    assert run("promtool", "check", "rules", tmp_path / "prometheus-rules.yaml").returncode == 0
    done = run("promtool", "test", "rules", tmp_path / "prometheus-rules-test.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    text = (tmp_path / "prometheus-rules.yaml").read_text()
    (tmp_path / "prometheus-rules.yaml").write_text(text.replace("> 60", "> 6000"))
    assert run("promtool", "test", "rules", tmp_path / "prometheus-rules-test.yaml").returncode != 0


def test_the_rules_name_series_that_there_are(server):
    found = set(re.findall(r"^([a-z0-9_]+)", server.get("/metrics").body.decode(), re.M))
    for group in yaml.safe_load((DEPLOY / "prometheus-rules.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            names = re.findall(r"\b([a-z0-9_]+)\{job=", rule["expr"])
            assert names and set(names) - {"up"} <= found, rule["alert"]


def documents(path):
    return [one for one in yaml.safe_load_all(path.read_text()) if one]


@pytest.mark.parametrize("path", sorted((DEPLOY / "kubernetes").glob("*.yaml")), ids=lambda path: path.name)
def test_kubernetes_files_fit_together(path):
    """What a schema would not see: names that must be the same in two places."""
    found = documents(path)
    names = [(one["kind"], one["metadata"]["name"]) for one in found]
    assert len(set(names)) == len(names)
    services = {one["metadata"]["name"]: one["spec"] for one in found if one["kind"] == "Service"}
    pods = [one for one in found if one["kind"] in ("StatefulSet", "Deployment")]
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in pods]
    for one in found:
        spec = one.get("spec", {})
        selector = spec.get("selector", {})
        wanted = selector.get("matchLabels", selector)
        assert not wanted or any(wanted.items() <= label.items() for label in labels), one["metadata"]
    for one in pods:
        spec = one["spec"]["template"]["spec"]
        if one["kind"] == "StatefulSet":
            assert "clusterIP" in services[one["spec"]["serviceName"]] or one["metadata"]["name"] == "postgres"
        volumes = {v["metadata"]["name"] for v in one["spec"].get("volumeClaimTemplates", [])}
        volumes |= {v["name"] for v in spec.get("volumes", [])}
        for volume in spec.get("volumes", []):
            assert "emptyDir" in volume or ("ConfigMap", volume["configMap"]["name"]) in names
        for container in spec["containers"]:
            assert {m["name"] for m in container.get("volumeMounts", [])} <= volumes
            ports = {p["name"] for p in container.get("ports", [])}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                port = container.get(probe, {}).get("httpGet", {}).get("port")
                assert port is None or port in ports
            for source in container.get("envFrom", []):
                assert ("Secret", source["secretRef"]["name"]) in names
            for service in services.values():
                if service["selector"].items() <= one["spec"]["template"]["metadata"]["labels"].items():
                    assert {p["targetPort"] for p in service["ports"]} <= ports
    hosts = {name for one in found if one["kind"] == "Secret" for text in one["stringData"].values()
             for name in re.findall(r"(?:@|//)([a-z][a-z0-9.-]*)[:/]", text)}
    assert {host.split(".")[-1] for host in hosts} <= set(services) | {"weir"}


@pytest.mark.parametrize("name", ["compose.yaml", "compose.cluster.yaml"])
def test_compose_files_fit_together(name):
    found = yaml.safe_load((DEPLOY / name).read_text())
    for service, spec in found["services"].items():
        assert "image" in spec, service
        for volume in spec.get("volumes", []):
            source = volume.split(":")[0]
            assert (DEPLOY / source).is_file() if source.startswith("./") else source in found["volumes"]
        for other in spec.get("depends_on", []):
            assert other in found["services"]
        if "build" in spec:
            assert (DEPLOY / spec["build"]["context"] / spec["build"]["dockerfile"]).is_file()
        for text in spec.get("environment", {}).values():
            for host in re.findall(r"(?:@|//)([a-z][a-z0-9-]*)[:/]", text):
                assert host in found["services"] or host == "weir", host


def test_settings_in_files_are_settings():
    known = set(re.findall(r"^\| ([A-Z0-9_]+) \|", (ROOT / "docs/config.md").read_text(), re.M))
    compose = [yaml.safe_load((DEPLOY / name).read_text())["services"] for name in ("compose.yaml", "compose.cluster.yaml")]
    used = {n for file in compose for name, spec in file.items() if name.startswith("weir") for n in spec.get("environment", {})}
    for path in (DEPLOY / "kubernetes").glob("*.yaml"):
        for one in documents(path):
            if one["metadata"]["name"].startswith("weir") and one["kind"] in ("StatefulSet", "Deployment"):
                used |= {e["name"] for e in one["spec"]["template"]["spec"]["containers"][0]["env"]}
    used |= set(re.findall(r"^ENV (.*)$", (DEPLOY / "Dockerfile").read_text(), re.M)[0].replace("=", " ").split()[::2])
    assert used and used <= known, used - known


@pytest.mark.released
def test_the_image_has_every_library():
    needed = set()
    for line in run("readelf", "-d", BINARY).stdout.splitlines():
        found = re.search(r"\(NEEDED\).*\[(.*)\]", line)
        if found:
            needed.add(found.group(1))
    text = (DEPLOY / "Dockerfile").read_text()
    for name in (one for one in needed if not one.startswith("ld-linux")):
        owner = run("sh", "-c", f"dpkg -S '*/x86_64-linux-gnu/{name}' | head -n 1").stdout.split(":")[0]
        assert owner == "libc6" or re.search(rf"\s{re.escape(owner)}\s", text), (name, owner)


def embedded(name):
    """The files of a ConfigMap."""
    return next(one["data"] for one in documents(DEPLOY / "kubernetes/cluster.yaml")
                if (one["kind"], one["metadata"]["name"]) == ("ConfigMap", name))


def test_haproxy_takes_the_balancer_of_the_cluster(tmp_path):
    """It is the one of compose, which test_fleet.py runs, but for where its nodes are; and those are Services."""
    text = embedded("balancer")["haproxy.cfg"]
    (tmp_path / "haproxy.cfg").write_text(text)
    done = run("haproxy", "-c", "-f", tmp_path / "haproxy.cfg")
    assert done.returncode == 0 and "WARNING" not in done.stdout + done.stderr, done.stderr
    services = {one["metadata"]["name"] for one in documents(DEPLOY / "kubernetes/cluster.yaml") if one["kind"] == "Service"}
    names = re.findall(r" ([a-z-]+)\.weir\.svc\.cluster\.local:3000$", text, re.M)
    assert names == ["weir-intake", "weir-query"] and set(names) <= services

    def rules(config):
        found = [line for line in config.splitlines() if not re.match(r"\s*(#|server|nameserver|parse-resolv|hold|$)", line)]
        return [line.split(" init-addr")[0] for line in found if not line.startswith("resolvers")]

    assert rules(text) == rules((DEPLOY / "compose.haproxy.cfg").read_text())


def test_the_cluster_has_nodes_of_each_role():
    compose = yaml.safe_load((DEPLOY / "compose.cluster.yaml").read_text())["services"]
    roles = [spec["environment"]["ROLES"] for name, spec in compose.items() if name.startswith("weir")]
    pods = [one["spec"] for one in documents(DEPLOY / "kubernetes/cluster.yaml")
            if one["kind"] == "Deployment" and one["metadata"]["name"].startswith("weir")]
    found = [(e["value"], one["replicas"]) for one in pods for e in one["template"]["spec"]["containers"][0]["env"]
             if e["name"] == "ROLES"]
    assert sorted(roles) == sorted(["intake", "apply", "query"] * 2)
    assert sorted(found) == [("apply", 2), ("intake", 2), ("query", 2)]
    probes = {one["selector"]["matchLabels"]["app.kubernetes.io/name"]:
              one["template"]["spec"]["containers"][0]["readinessProbe"]["httpGet"]["path"] for one in pods}
    assert probes == {"weir-intake": "/health/intake", "weir-apply": "/health/ready", "weir-query": "/health/ready"}


def test_nats_takes_its_file(tmp_path):
    """Debian's server is older than the setting that syncs always; the rest it must know."""
    text = (DEPLOY / "nats.conf").read_text()
    assert "sync_interval: always" in text
    (tmp_path / "nats.conf").write_text(text.replace("  sync_interval: always\n", ""))
    done = run("nats-server", "-t", "-c", tmp_path / "nats.conf")
    assert done.returncode == 0, done.stderr
    text = embedded("nats")["nats.conf"]
    (tmp_path / "nats.conf").write_text(text.replace("  sync_interval: always\n", ""))
    assert run("nats-server", "-t", "-c", tmp_path / "nats.conf").returncode == 0


# --- proxies --------------------------------------------------------------------------------------------------------

def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificate")
    done = run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
               "-days", "2", "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}",
               "-keyout", folder / "key.pem", "-out", folder / "cert.pem")
    assert done.returncode == 0, done.stderr
    (folder / "both.pem").write_text((folder / "cert.pem").read_text() + (folder / "key.pem").read_text())
    return folder


class Proxy:
    """The example with other addresses, in front of some nodes."""

    def __init__(self, kind, folder, certificate, nodes, questions=None):
        self.questions = questions or nodes
        self.plain, self.port = free_ports(2)
        self.certificate = certificate
        if kind == "nginx":
            words = self.nginx(folder, nodes)
        else:
            words = self.haproxy(folder, nodes)
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True)
        until(self.listens)

    def listens(self):
        assert self.process.poll() is None, self.process.stdout.read()
        with socket.socket() as one:
            return one.connect_ex(("127.0.0.1", self.port)) == 0

    def nginx(self, folder, nodes):
        text = (DEPLOY / "nginx.conf").read_text()
        example = "    server 127.0.0.1:3000 max_fails=1 fail_timeout=1s;"
        both = [[f"    server 127.0.0.1:{node} max_fails=1 fail_timeout=1s;" for node in some]
                for some in (nodes, self.questions)]
        both[1] += [line.replace(";", " backup;") for line in both[0] if line not in both[1]]
        assert text.count(example) == 2
        for some in both:
            text = text.replace(example, "\n".join(some), 1)
        text = replaced(text, "listen 443 ssl http2;", f"listen 127.0.0.1:{self.port} ssl http2;")
        text = replaced(text, "listen 80;", f"listen 127.0.0.1:{self.plain};")
        text = replaced(text, "/etc/ssl/example/weir.pem", str(self.certificate / "cert.pem"))
        text = replaced(text, "/etc/ssl/example/weir.key", str(self.certificate / "key.pem"))
        (folder / "weir.conf").write_text(text)
        paths = "".join(f"{name}_temp_path {folder}/{name};\n"
                        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (folder / "nginx.conf").write_text(
            f"daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;\n"
            f"events {{ worker_connections 1024; }}\n"
            f"http {{ access_log off;\n{paths}include {folder}/weir.conf;\n}}\n")
        words = ["nginx", "-p", str(folder), "-c", str(folder / "nginx.conf")]
        done = run(*words, "-t")
        assert done.returncode == 0 and "[warn]" not in done.stderr, done.stderr
        return words

    def haproxy(self, folder, nodes):
        text = (DEPLOY / "haproxy.cfg").read_text()
        servers = "\n".join(f"    server n{node} 127.0.0.1:{node}" for node in nodes)
        text = replaced(text, "    server one 127.0.0.1:3000", servers)
        text = replaced(text, "maxconn 20000", "maxconn 500")
        text = replaced(text, "bind :443", f"bind 127.0.0.1:{self.port}")
        text = replaced(text, "bind :80", f"bind 127.0.0.1:{self.plain}")
        text = replaced(text, "/etc/ssl/example/weir-haproxy.pem", str(self.certificate / "both.pem"))
        (folder / "haproxy.cfg").write_text(text)
        done = run("haproxy", "-c", "-f", folder / "haproxy.cfg")
        assert done.returncode == 0 and "WARNING" not in done.stdout + done.stderr, done.stderr
        return ["haproxy", "-db", "-f", str(folder / "haproxy.cfg")]

    def stop(self):
        self.process.terminate()
        self.process.communicate(timeout=60)

    def connect(self):
        context = ssl.create_default_context(cafile=str(self.certificate / "cert.pem"))
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        connection = http.client.HTTPSConnection(NAME, self.port, timeout=60, context=context)
        connection.sock = context.wrap_socket(plain, server_hostname=NAME)
        return connection

    def request(self, method, path, body=None, **headers):
        connection = self.connect()
        try:
            connection.request(method, path, body=body, headers={n.replace("_", "-"): v for n, v in headers.items()})
            got = connection.getresponse()
            return got.status, got.read()
        finally:
            connection.close()


def replaced(text, old, new):
    assert old in text, old
    return text.replace(old, new)


@pytest.fixture(params=["nginx", "haproxy"])
def proxy(request, tmp_path, certificate):
    running = []

    def make(nodes):
        folder = tmp_path / request.param
        folder.mkdir()
        running.append(Proxy(request.param, folder, certificate, nodes))
        return running[0]

    make.kind = request.param
    yield make
    for one in running:
        one.stop()


def test_requests_uploads_and_tails_pass(weir, proxy):
    server = weir()
    front = proxy([server.port])
    key = {"X_API_Key": server.key}
    until(lambda: front.request("GET", "/health/ready")[0] == 200)
    # A live tail is open while the rest happens, and says each event when it comes.
    tail = front.connect()
    tail.request("GET", "/api/v1/events/stream", headers={"X-API-Key": server.key})
    stream = tail.getresponse()
    assert stream.status == 200

    status, body = front.request("POST", "/api/events", json.dumps(event(1)), Content_Type="application/json", **key)
    assert status == 202
    wanted = json.loads(body)["id"]
    while True:
        line = stream.readline().decode()
        assert line, "the tail ended"
        if line.startswith("data: ") and json.loads(line[6:])["id"] == wanted:
            break
    tail.close()

    body = lines(batch_events(20000, "up", 200))
    assert len(body) > 4 << 20
    status, answer = front.request("POST", "/api/events/batch", body, Content_Type=NDJSON["Content-Type"], **key)
    assert status == 202 and json.loads(answer)["accepted"] == 20000
    drained(server)
    assert front.request("GET", "/api/v1/events?limit=1", **key)[0] == 200
    assert len(events(server)) == 20001
    # Never refused for its size by the proxy, never shown to the world, and never plain.
    assert front.request("GET", "/metrics", **key)[0] == 403
    plain = http.client.HTTPConnection("127.0.0.1", front.plain, timeout=60)
    plain.request("GET", "/health/live")
    assert plain.getresponse().status in (301, 302)
    plain.close()


def test_nginx_by_roles(weir, database_server, tmp_path, certificate):
    """Records go to who takes in, questions to the node for them, and to the others when it is away."""
    settings = {"DATABASE_URL": database_server.url(database_server.new_database()), "DATABASE_MAX_CONNECTIONS": "6",
                "DATABASE_MIN_CONNECTIONS": "1"}
    intake = weir(**settings, ROLES="intake,apply")
    asked = weir(start=False, **settings, ROLES="query")
    asked.key = intake.key
    asked.start()
    front = Proxy("nginx", tmp_path, certificate, [intake.port], [asked.port])
    key = {"X_API_Key": intake.key}

    def post(number):
        return front.request("POST", "/api/events?wait=stored", json.dumps(event(number)),
                             Content_Type="application/json", **key)[0]

    def roles():
        return json.loads(front.request("GET", "/health/ready")[1])["roles"]

    try:
        for number in range(10):
            assert post(number) == 201
            assert roles() == ["query"]
        assert len(events(asked)) == 10
        asked.stop()
        for _ in range(10):
            assert roles() == ["intake", "apply"]
        assert post(10) == 201
    finally:
        front.stop()


def test_an_upload_is_not_collected_by_the_proxy(weir, proxy):
    """Half of the body is with Weir while the client has not sent the rest: its bytes are counted there."""
    server = weir()
    front = proxy([server.port])
    until(lambda: front.request("GET", "/health/ready")[0] == 200)
    body = lines(batch_events(20000, "slow", 200))
    half = len(body) // 2
    before = received(server)
    one = front.connect()
    one.putrequest("POST", "/api/events/batch")
    for name, value in {"X-API-Key": server.key, "Content-Length": str(len(body)), **NDJSON}.items():
        one.putheader(name, value)
    one.endheaders()
    one.send(body[:half])
    until(lambda: received(server) - before > half * 9 // 10)
    one.send(body[half:])
    answer = one.getresponse()
    assert answer.status == 202 and json.loads(answer.read())["accepted"] == 20000
    one.close()


def received(server):
    found = re.search(r"^http_received_bytes_total (\S+)$", server.get("/metrics").body.decode(), re.M)
    return float(found.group(1))


def test_http_2_is_spoken_in_front(weir, proxy, certificate):
    server = weir()
    front = proxy([server.port])
    until(lambda: front.request("GET", "/health/ready")[0] == 200)
    done = run("curl", "-sS", "--http2", "--cacert", certificate / "cert.pem", "--resolve",
               f"{NAME}:{front.port}:127.0.0.1", "-o", os.devnull, "-w", "%{http_version} %{http_code}",
               f"https://{NAME}:{front.port}/health/live")
    assert done.stdout == "2 200", done


def test_a_node_whose_store_is_away_still_takes_in(weir, proxy):
    server = weir()
    front = proxy([server.port])
    until(lambda: front.request("GET", "/health/ready")[0] == 200)
    lock = sqlite3.connect(server.data_dir / "weir.db", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")

    def post_one(number):
        status, _ = front.request("POST", "/api/events", json.dumps(event(number)), Content_Type="application/json",
                                  X_API_Key=server.key)
        assert status == 202
        return server.get("/health/ready", key=None).status == 503

    numbers = iter(range(1000000))
    until(lambda: post_one(next(numbers)))
    over = time.monotonic() + 2
    while time.monotonic() < over:  # as long as four checks of HAProxy take
        post_one(next(numbers))
    lock.rollback()
    posted = next(numbers)
    until(lambda: len(events(server)) == posted)


@pytest.mark.seconds(12)
def test_nodes_are_restarted_one_after_the_other_and_no_request_fails(weir, proxy):
    """Each node has its own store here: what counts is that every request gets its 202."""
    ports = free_ports(2)
    nodes = [weir(PORT=port, DRAIN_DELAY=2) for port in ports]
    key = nodes[0].command("key", "create", "--name", "both").stdout.strip().split("\n")[-1]
    # The second node is a copy of the first, so that both know the key.
    nodes[0].stop()
    shutil.copytree(nodes[0].data_dir, nodes[1].data_dir.parent / "copy", ignore=shutil.ignore_patterns("weir.sock"))
    nodes[1].stop()
    nodes[1] = weir(start=False, data_dir=nodes[1].data_dir.parent / "copy", PORT=ports[1], DRAIN_DELAY=2)
    for node in nodes:
        node.key = key
        node.start()
    front = proxy(ports)
    until(lambda: front.request("GET", "/health/ready")[0] == 200)
    failed, sent, ended = [], [0] * 4, threading.Event()

    def client(number):
        while not ended.is_set():
            text = json.dumps(event(f"{number}-{sent[number]}"))
            try:
                status, body = front.request("POST", "/api/events", text, Content_Type="application/json", X_API_Key=key)
            except OSError as fault:
                status, body = fault, b""
            if status != 202:
                failed.append((status, body))
            sent[number] += 1

    clients = [threading.Thread(target=client, args=(number,)) for number in range(4)]
    for one in clients:
        one.start()
    for node in nodes:
        before = sum(sent)
        until(lambda: sum(sent) > before + 20)
        assert node.stop() == 0
        before = sum(sent)
        until(lambda: sum(sent) > before + 20)  # served by the other
        node.start()
        until(lambda: node_is_used(front, node))
    ended.set()
    for one in clients:
        one.join()
    assert failed == [] and sum(sent) > 80


def node_is_used(front, node):
    """Ready, and met through the proxy again."""
    before = received(node)
    for _ in range(8):
        front.request("GET", "/health/live")
    return received(node) - before > 1500
