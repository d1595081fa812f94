"""Promise: the metrics page is well-formed by Prometheus' own check, has every name that applies so far, counts
what happened, and tells nothing about anybody."""
import re
import socket
import subprocess
import urllib.error
import urllib.request

import pytest

from black_box import drained, event, metric, post, until
from conftest import JOURNAL

NAMES = """event_ingestion_latency_seconds auth_latency_seconds rate_limit_check_latency_seconds
    db_operations_latency_seconds events_ingested_total cache_lookups_total event_queue_size
    validation_errors_total ingest_queue_depth ingest_consumer_pending ingest_consumer_ack_pending
    ingest_dlq_total ingest_batch_size worker_batches_total worker_db_commit_seconds worker_last_active_seconds
    event_queue_capacity ingest_queue_latency_seconds db_slow_queries_total db_query_timeouts_total
    journal_commit_seconds journal_commit_records journal_bytes journal_oldest_unapplied_seconds
    journal_records_dropped_total process_cpu_seconds_total process_open_fds process_max_fds
    process_resident_memory_bytes process_virtual_memory_bytes process_start_time_seconds""".split()


def page(server, **headers):
    answer = server.get("/metrics", key=None, headers=headers)
    assert answer.status == 200
    return answer


def test_promtool_has_nothing_to_say(server):
    post(server, 1)
    done = subprocess.run(["promtool", "check", "metrics"], input=page(server).body, capture_output=True, timeout=60)
    assert done.returncode == 0 and done.stderr == b"" and done.stdout == b"", done


def test_every_name_of_the_contract(server):
    text = page(server).body.decode()
    families = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M))
    assert [name for name in NAMES if name not in families] == []
    assert all(families[name] == "counter" for name in families if name.endswith("_total"))
    for label in ('worker_batches_total{worker="', 'db_operations_latency_seconds_bucket{operation="',
                  'cache_lookups_total{cache="', 'validation_errors_total{type="', 'ingest_dlq_total{reason="'):
        assert label in text


def test_open_metrics_when_asked(server):
    answer = page(server, Accept="application/openmetrics-text; version=1.0.0")
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    assert answer.body.endswith(b"# EOF\n")
    answer = page(server)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")


def test_it_counts_what_happened(weir):
    server = weir()
    for number in range(5):
        post(server, number)
    body = "\n".join('{"type":"a","payload":1}' for _ in range(7))
    assert server.post("/api/events/batch", body, headers={"Content-Type": "application/x-ndjson"}).status == 202
    server.post("/api/events", b"{", headers={"Content-Type": "application/json"})
    server.get("/api/inbox", key="weir_nonsense")
    drained(server)
    assert metric(server, "events_ingested_total") == 12
    assert metric(server, 'validation_errors_total{type="malformed"}') == 1
    assert metric(server, "auth_failures_total") == 1
    assert metric(server, "event_ingestion_latency_seconds_count") >= 6
    assert metric(server, "journal_commit_seconds_count") >= 6
    assert metric(server, "ingest_batch_size_sum") == 12
    assert metric(server, "ingest_queue_latency_seconds_count") >= 1  # one a batch
    assert metric(server, "journal_records_dropped_total") == 0
    assert metric(server, "event_queue_size") == 0
    assert metric(server, "worker_last_active_seconds{worker=\"0\"}") > 1.6e9


def test_the_queue_shows_what_waits(weir):
    server = weir(APPLY_PAUSED=1)
    for number in range(5):
        post(server, number)
    until(lambda: metric(server, "event_queue_size") == metric(server, "ingest_queue_depth") == 5)
    assert metric(server, "event_queue_capacity") > 0
    if JOURNAL == "local":
        until(lambda: post(server, "more") and metric(server, "journal_bytes") > 0)  # sampled with commits
    until(lambda: metric(server, "journal_oldest_unapplied_seconds") > 0)


def test_nothing_of_a_person_or_key_stands_in_it(server):
    secret = "person-4711"
    answer = server.post("/api/events", event(1, f"type.{secret}", subject=secret, source=secret, app=secret))
    assert answer.status == 202
    server.get(f"/api/v1/events?subject={secret}")
    server.get(f"/{secret}")
    text = page(server).body.decode()
    for word in (secret, server.key, server.key.split("_")[1], answer.json["id"], "main"):
        assert word not in text


def test_a_port_of_its_own(weir):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    one = weir(METRICS_PORT=port)
    assert one.get("/metrics", key=None).status == 404
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        assert answer.status == 200 and b"events_ingested_total" in answer.read()
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/api/inbox", timeout=30)
    assert refused.value.code == 404
