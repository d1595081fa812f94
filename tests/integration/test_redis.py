"""Promise: with REDIS_URL the limits are counted in Redis, whatever form it has; without Redis the server goes on by
itself, says so, and comes back by itself; a wrong setting is one clear line without the password."""
import subprocess
import threading

import pytest

from black_box import metric, until
from redis_servers import Servers, free_port
from test_bad_input import refused_start

BACK_SECONDS = 10


@pytest.fixture
def redis(tmp_path):
    servers = Servers(tmp_path)
    yield servers
    servers.stop()


def ready(server):
    answer = server.get("/health/ready", key=None)
    assert answer.status == 200, answer
    return answer.json


def until_shared(server, seconds=BACK_SECONDS):
    until(lambda: ready(server)["status"] == "ok", seconds)


def spend(server, key, count):
    """`count` admitted requests. A refusal that leaves something is a wait for Redis' answer: asked again."""
    admitted = 0
    while admitted < count:
        answer = server.get("/api/v1/limits", key=key)
        assert answer.status == 200 or int(answer.headers["x-ratelimit-remaining"]) > 0, (admitted, answer.headers)
        admitted += answer.status == 200


def until_told(server, key, check):
    """What a node used before its answer came is told with its next request: one more is made now and then."""
    for _ in range(12):
        try:
            return until(check, 5)
        except AssertionError:
            spend(server, key, 1)
    return until(check)


def refuses(server, key):
    answer = server.get("/api/v1/limits", key=key)
    return answer.status == 429 and answer.headers["x-ratelimit-remaining"] == "0"


def limited_org(server, name):
    """The key of an org with 100 requests a minute."""
    return server.new_org(name, tier="free")


def test_limits_are_counted_in_redis(weir, redis):
    one = redis.one()
    server = weir(REDIS_URL=f"redis://127.0.0.1:{one.port}/4")
    assert ready(server)["parts"]["redis"] == {"status": "ok"}
    key = limited_org(server, "counted")
    spend(server, key, 100)
    assert refuses(server, key)
    until(lambda: refuses(server, key)
          and one.cli("-n", "4", "HGET", one.cli("-n", "4", "KEYS", "weir:*:org:*"), "c") == "100")
    assert metric(server, "redis_up") == 1
    assert metric(server, 'redis_leases_total{result="ok"}') >= 1
    assert one.cli("DBSIZE") == "0"


def test_without_redis_nothing_is_said_of_it(server):
    assert "redis" not in ready(server)["parts"]


def test_redis_away_is_degraded_and_not_failed(weir, redis):
    one = redis.one()
    server = weir(REDIS_URL=f"redis://127.0.0.1:{one.port}")
    key = limited_org(server, "away")
    spend(server, key, 10)
    one.kill()
    until(lambda: ready(server)["status"] == "degraded")
    part = ready(server)["parts"]["redis"]
    assert part["status"] == "degraded" and part["code"]
    assert metric(server, "redis_up") == 0
    spend(server, key, 90)
    assert refuses(server, key)
    one.start()
    until_shared(server)
    other = limited_org(server, "back")
    spend(server, other, 5)
    until_told(server, other, lambda: any(count >= 5 for count in one.windows().values()))


def test_a_start_without_redis(weir, redis):
    port = free_port()
    server = weir(REDIS_URL=f"redis://:hush@127.0.0.1:{port}")
    assert ready(server)["status"] == "degraded"
    key = limited_org(server, "alone")
    spend(server, key, 100)
    assert refuses(server, key)
    assert "hush" not in "".join(server.log)
    redis.one(port=port, requirepass="hush")
    until_shared(server)


@pytest.mark.parametrize("url, said", [
    ("redis://:hush@127.0.0.1:{port}", "WRONGPASS"), ("redis://weir:hush@127.0.0.1:{port}", "WRONGPASS"),
    ("redis://127.0.0.1:{port}", "NOAUTH"), ("http://:hush@127.0.0.1", "must begin with redis://"),
    ("redis://:open@127.0.0.1:{port}/99", "DB index is out of range"), ("redis://hush@host", "user:password@")])
def test_a_wrong_setting_is_one_line(weir, redis, url, said):
    one = redis.one(requirepass="open")
    line = refused_start(weir(start=False, REDIS_URL=url.format(port=one.port)))
    assert line.count("\n") == 1 and "REDIS_URL" in line and said in line
    assert "hush" not in line and "open@" not in line


def test_the_password_is_not_shown(weir):
    server = weir(start=False, REDIS_URL="redis+sentinel://weir:hu%40sh@a,b/main")
    server.data_dir.mkdir()
    shown = server.command("config").stdout
    assert "REDIS_URL=redis+sentinel://weir:***@a,b/main" in shown and "sh@" not in shown
    server.settings["REDIS_URL"] = "redis://:hu/sh@a"
    assert "hu" not in [line for line in server.command("config").stdout.split("\n") if line.startswith("REDIS_URL=")][0]


def test_a_redis_that_may_evict_is_warned_of(weir, redis):
    bad = redis.one(maxmemory="64mb", maxmemory_policy="volatile-lru")
    good = redis.one(maxmemory="64mb", maxmemory_policy="noeviction")
    for one, is_warned in ((bad, True), (good, False)):
        server = weir(REDIS_URL=f"redis://127.0.0.1:{one.port}")
        assert ("noeviction" in "".join(server.log)) == is_warned


def test_tls(weir, redis, tmp_path):
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
                    "2", "-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=DNS:localhost"], cwd=tmp_path, check=True, capture_output=True)
    cert, port = str(tmp_path / "cert.pem"), free_port()
    one = redis.one(port=free_port(), tls_port=port, tls_cert_file=cert, tls_key_file=str(tmp_path / "key.pem"),
                    tls_ca_cert_file=cert, tls_auth_clients="no")
    server = weir(REDIS_URL=f"rediss://localhost:{port}", SSL_CERT_FILE=cert)
    until_shared(server)
    key = limited_org(server, "tls")
    spend(server, key, 20)
    until_told(server, key, lambda: any(count >= 20 for count in one.windows().values()))
    line = refused_start(weir(start=False, REDIS_URL=f"rediss://localhost:{port}"))
    assert "REDIS_URL" in line and "self-signed certificate" in line
    line = refused_start(weir(start=False, REDIS_URL=f"rediss://127.0.0.1:{port}", SSL_CERT_FILE=cert))
    assert "IP address mismatch" in line


def move_slot(nodes, name):
    """Moves the slot of a key to another node, as an operator does, and gives that node."""
    slot = nodes[0].cli("CLUSTER", "KEYSLOT", name)
    ids = [node.cli("CLUSTER", "MYID") for node in nodes]
    source = next(i for i, node in enumerate(nodes) if name in node.windows())
    target = (source + 1) % len(nodes)
    nodes[target].cli("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[source])
    nodes[source].cli("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[target])
    names = nodes[source].cli("CLUSTER", "GETKEYSINSLOT", slot, "100").split("\n")
    nodes[source].cli("MIGRATE", "127.0.0.1", str(nodes[target].port), "", "0", "5000", "KEYS", *names)
    return slot, ids[target], nodes[target]


def test_a_cluster(weir, redis):
    nodes = redis.cluster()
    server = weir(REDIS_URL=f"redis+cluster://127.0.0.1:{nodes[0].port}")
    until_shared(server)
    keys = [limited_org(server, f"cluster{i}") for i in range(12)]
    for key in keys:
        spend(server, key, 3)
    until(lambda: sum(len(node.windows()) for node in nodes) == 12)
    assert sum(1 for node in nodes if node.windows()) >= 2  # 12 orgs in one of three: 3 ** -11
    # A slot moves while its org goes on: ASK while it is under way, MOVED afterwards.
    spend(server, keys[0], 20)
    name = until_told(server, keys[0], lambda: next(
        (name for node in nodes for name, count in node.windows().items() if count >= 23), None))
    slot, target_id, target = move_slot(nodes, name)
    spend(server, keys[0], 30)
    for node in nodes:
        node.cli("CLUSTER", "SETSLOT", slot, "NODE", target_id)
    until_told(server, keys[0], lambda: target.windows().get(name, 0) >= 53)
    spend(server, keys[0], 30)
    until_told(server, keys[0], lambda: target.windows().get(name, 0) >= 83)
    assert ready(server)["status"] == "ok"
    assert metric(server, 'redis_leases_total{result="failed"}') == 0


@pytest.mark.seconds(6)
def test_part_of_a_cluster_away(weir, redis):
    nodes = redis.cluster()
    for node in nodes:
        node.cli("CONFIG", "SET", "cluster-require-full-coverage", "no")
    server = weir(REDIS_URL=",".join([f"redis+cluster://127.0.0.1:{nodes[0].port}",
                                      *(f"127.0.0.1:{node.port}" for node in nodes[1:])]))
    until_shared(server)
    nodes[0].kill()
    until(lambda: ready(server)["status"] == "degraded")
    keys = [limited_org(server, f"part{i}") for i in range(12)]
    for key in keys:
        spend(server, key, 100)
        assert refuses(server, key)
    assert sum(len(node.windows()) for node in nodes[1:]) >= 1  # the others' orgs are shared on
    nodes[0].start()
    until_shared(server)


@pytest.mark.seconds(7)
def test_a_sentinel_names_the_new_master(weir, redis):
    master = redis.one()
    replica = redis.one(replicaof=f"127.0.0.1 {master.port}")
    until(lambda: "master_link_status:up" in replica.cli("INFO", "replication"))
    sentinel = redis.sentinel("main", master)
    until(lambda: f"port={replica.port}" in sentinel.cli("SENTINEL", "REPLICAS", "main")
          or str(replica.port) in sentinel.cli("SENTINEL", "REPLICAS", "main"))
    server = weir(REDIS_URL=f"redis+sentinel://127.0.0.1:{sentinel.port}/main")
    until_shared(server)
    key = limited_org(server, "sentinel")
    spend(server, key, 30)
    until_told(server, key, lambda: any(count >= 30 for count in replica.windows().values()))
    master.kill()
    # The sentinel closes all connections of the one that it makes the master.
    until(lambda: "role:master" in replica.cli("INFO", "replication", check=False))
    until_shared(server)
    spend(server, key, 60)
    # The new master knew the thirty. What was used meanwhile is told with the next request.
    until(lambda: refuses(server, key) and any(count >= 100 for count in replica.windows().values()))


def test_a_name_that_the_sentinels_do_not_know(weir, redis):
    sentinel = redis.sentinel("main", redis.one())
    line = refused_start(weir(start=False, REDIS_URL=f"redis+sentinel://127.0.0.1:{sentinel.port}/mian"))
    assert "no master named mian" in line


def test_redis_restarts_under_load(weir, redis):
    """No request is refused or fails for it, and the node is back by itself."""
    one = redis.one()
    server = weir(REDIS_URL=f"redis://127.0.0.1:{one.port}")
    key = server.new_org("load", tier="enterprise")
    stop, statuses = threading.Event(), []

    def load():
        while not stop.is_set():
            statuses.append(server.get("/api/v1/limits", key=key).status)

    thread = threading.Thread(target=load)
    thread.start()
    try:
        for _ in range(3):
            until(lambda: ready(server)["status"] == "ok")
            one.kill()
            until(lambda: ready(server)["status"] == "degraded")
            one.start()
            until_shared(server)
    finally:
        stop.set()
        thread.join()
    assert len(statuses) > 100 and set(statuses) == {200}
