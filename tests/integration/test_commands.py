"""Promise: every command does what its help says, with a server and without one; a wrong one ends non-zero with
one line that says what to do."""
import json
import os
import re
import subprocess

import pytest

from black_box import drained, event, events, post
from conftest import BINARY

KEY = re.compile(r"weir_[A-Za-z0-9]+_[A-Za-z0-9]+")
HELPED = [["serve"], ["org"], ["org", "create"], ["org", "list"], ["key"], ["key", "create"], ["key", "list"],
          ["key", "rotate"], ["key", "revoke"], ["journal"], ["journal", "check"], ["journal", "dump"], ["backup"], ["restore"], ["config"],
          ["bench"]]


def run(*words, folder, **settings):
    return subprocess.run([str(BINARY), *words], cwd=folder, capture_output=True, text=True, timeout=60,
                          env={"PATH": os.environ["PATH"], "DATA_DIR": str(folder / "data"), **settings})


@pytest.mark.parametrize("words", HELPED, ids=" ".join)
def test_help(words, tmp_path):
    for flag in ("--help", "-h"):
        done = run(*words, flag, folder=tmp_path)
        assert done.returncode == 0 and done.stderr == ""
        assert f"weir {' '.join(words)}" in done.stdout
    assert list(tmp_path.iterdir()) == []  # help opens nothing


def test_help_of_all(tmp_path):
    for words in (["--help"], ["-h"], ["help"]):
        done = run(*words, folder=tmp_path)
        assert done.returncode == 0
        for command in ("serve", "org", "key", "journal", "backup", "restore", "config", "bench", "version"):
            assert f"weir {command}" in done.stdout
    assert run(folder=tmp_path).returncode == 2
    assert re.fullmatch(r"weir \d+\.\d+\.\d+\n", run("version", folder=tmp_path).stdout)


@pytest.mark.parametrize("words, hint", [
    (["srve"], "weir --help"),
    (["backup"], "weir backup DIR"),
    (["backup", "nowhere", "twice"], "weir backup DIR"),
    (["restore"], "weir restore DIR"),
    (["restore", "nowhere", "--data-dir"], "weir restore DIR"),
    (["serve", "now"], "weir serve --help"),
    (["org", "make"], "weir org --help"),
    (["org", "create"], "usage"),
    (["org", "create", "a", "--tier", "gold"], "unlimited"),
    (["key", "create", "--scopes", "all"], "read, write, admin"),
    (["key", "create", "--expires-days", "0"], "36500"),
    (["key", "create", "--org", "nobody"], "weir org list"),
    (["key", "rotate"], "usage"),
    (["key", "rotate", "0000"], "weir key list"),
    (["key", "revoke", "0000"], "weir key list"),
    (["journal", "mend"], "usage"),
    (["bench", "--nonsense"], "weir bench --help"),
    (["bench", "--connections", "0", "--key", "x"], "weir bench --help"),
    (["bench", "--url", "ftp://x", "--key", "x"], "http://"),
    (["bench", "--seconds", "1"], "--key"),
    (["bench", "--audit", "--key", "x"], "--ids"),
    (["bench", "--key", "x", "--url", "http://127.0.0.1:1", "--seconds", "1"], "127.0.0.1 port 1"),
    (["config", "--config", "/nowhere/weir.conf"], "/nowhere/weir.conf"),
], ids=lambda value: " ".join(value) if isinstance(value, list) else None)
def test_wrong_use_ends_with_one_line_that_says_what_to_do(words, hint, tmp_path):
    done = run(*words, folder=tmp_path)
    assert done.returncode in (1, 2)
    assert done.stdout == ""
    assert done.stderr.startswith("weir: ") and hint in done.stderr
    assert "usage" in hint or done.stderr.count("\n") == 1, done.stderr


def last_line(done):
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().split("\n")[-1]


def exercise(server, folder, settings):
    """Each command of org and key once; gives the key that lives at the end."""

    def command(*words):
        return run(*words, folder=folder, **settings)

    made = last_line(command("org", "create", "acme", "--tier", "free"))
    assert KEY.fullmatch(made)
    assert "acme" in command("org", "list").stdout and "free" in command("org", "list").stdout
    again = command("org", "create", "acme")
    assert again.returncode == 1 and "exists" in again.stderr and again.stderr.count("\n") == 1
    narrow = last_line(command("key", "create", "--org", "acme", "--scopes", "read:events,write:health"))
    assert "--- read:events write:health" in [
        line for line in command("key", "list", "--org", "acme").stdout.split("\n")
        if line.startswith(narrow.split("_")[1])][0]
    reader = last_line(command("key", "create", "--org", "acme", "--scopes", "read", "--name", "reader",
                               "--expires-days", "7"))
    assert KEY.fullmatch(reader)
    listed = command("key", "list", "--org", "acme").stdout
    assert "reader" in listed and "expires" in listed
    assert made not in listed and reader not in listed  # no secret is shown again
    identity = reader.split("_")[1]
    rotated = last_line(command("key", "rotate", identity))
    assert KEY.fullmatch(rotated) and rotated != reader
    if server is not None:
        assert server.get("/api/inbox", key=reader).status == 401
        assert server.get("/api/inbox", key=rotated).status == 200
        assert server.post("/api/events", event(1), key=rotated).status == 403
    assert command("key", "revoke", rotated.split("_")[1]).returncode == 0
    assert "revoked" in command("key", "list", "--org", "acme").stdout
    if server is not None:
        assert server.get("/api/inbox", key=rotated).status == 401
    return made


def test_org_and_key_with_a_running_server(weir, tmp_path):
    server = weir(data_dir=tmp_path / "data")
    key = exercise(server, tmp_path, {})
    assert server.get("/api/inbox", key=key).status == 200


def test_org_and_key_without_a_server(weir, tmp_path):
    key = exercise(None, tmp_path, {})
    server = weir(start=False, data_dir=tmp_path / "data", DATABASE_URL="")
    server.key = key
    server.start()
    assert server.get("/api/inbox").status == 200
    assert server.output == []  # there is an org, so no first key is made


def test_every_tier(weir, tmp_path):
    for tier in ("free", "pro", "business", "enterprise", "unlimited"):
        assert KEY.fullmatch(last_line(run("org", "create", tier, f"--tier={tier}", folder=tmp_path)))
    listed = run("org", "list", folder=tmp_path).stdout
    assert all(re.search(rf"{tier} .* {tier}$", listed, re.M) for tier in ("free", "unlimited"))


def test_the_first_start_prints_a_key_and_a_curl_line_that_works(weir):
    server = weir()
    text = "".join(server.output)
    assert server.key in text
    line = re.search(r"curl -X POST .*?}}'", text, re.S).group(0)
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=30)
    assert json.loads(done.stdout)["status"] == "accepted", done
    drained(server)
    assert [one["type"] for one in events(server)] == ["user.login"]


@pytest.mark.local_journal_alone
def test_journal_check_and_dump(weir):
    server = weir(APPLY_PAUSED=1)
    # Without a dedup_id an event has the id of its frame.
    ids = [server.post("/api/events", {"type": "a", "payload": number}).json["id"] for number in range(10)]
    for _ in range(2):  # beside the server, and after its end
        check = server.command("journal", "check")
        assert re.search(r"frames +10\n", check.stdout) and re.search(r"damaged bytes +0 ", check.stdout)
        rows = [json.loads(line) for line in server.command("journal", "dump").stdout.splitlines()]
        assert [row["id"] for row in rows if row["records"] == 1] == ids
        after = server.command("journal", "dump", "--after", rows[4]["position"]).stdout.splitlines()
        assert [json.loads(line)["position"] for line in after] == [row["position"] for row in rows[5:]]
        server.stop()


def test_journal_check_of_nothing(tmp_path):
    done = run("journal", "check", folder=tmp_path)
    assert done.returncode in (0, 1)
    if done.returncode == 1:
        assert done.stderr.startswith("weir: journal check: ") and done.stderr.count("\n") == 1


def test_bench_and_its_audit(weir, tmp_path):
    server = weir()
    options = ["--url", server.url, "--key", server.key, "--ids", str(tmp_path / "ids")]
    done = run("bench", *options, "--count", "500", "--connections", "8", folder=tmp_path)
    assert done.returncode == 0 and "acknowledged  500 requests" in done.stdout and "p99.9" in done.stdout
    drained(server)
    done = run("bench", *options, "--audit", folder=tmp_path)
    assert done.returncode == 0 and "acknowledged 500, found once 500, lost 0, twice 0" in done.stdout
    # The audit finds what is not there.
    with open(tmp_path / "ids", "a", encoding="ascii") as file:
        file.write("01234567-89ab-7def-8123-456789abcdef\n")
    done = run("bench", *options, "--audit", folder=tmp_path)
    assert done.returncode == 1 and "lost 1" in done.stdout and "01234567-89ab" in done.stderr
    done = run("bench", "--json", *options[:4], "--seconds", "1", "--rate", "200", folder=tmp_path)
    got = json.loads(done.stdout)
    assert got["errors"] == 0 and 150 <= got["requests"] <= 250
    refused = run("bench", *options[:2], "--key", server.key, "--wrong-keys", "--count", "10", folder=tmp_path)
    assert refused.returncode == 1 and "the first was 401" in refused.stdout


def test_commands_that_need_a_directory_they_may_not_read(tmp_path):
    (tmp_path / "data").write_text("a file")
    for words in (["org", "list"], ["key", "list"], ["org", "create", "a"]):
        done = run(*words, folder=tmp_path)
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and str(tmp_path / "data") in done.stderr
