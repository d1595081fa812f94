"""Promise: the settings are one table: what is documented, printed and in force is the same, and each value says
where it came from."""
import os
import re
import subprocess

from conftest import BINARY, ROOT


def config(folder, *words, **environment):
    return subprocess.run([str(BINARY), "config", *words], cwd=folder, capture_output=True, text=True, timeout=30,
                          env={"PATH": os.environ["PATH"], **environment})


def values_of(done):
    assert done.returncode == 0, done.stderr
    return {name: (value, origin) for name, value, origin in
            re.findall(r"^(\w+)=(.*)  # (default|file|environment)$", done.stdout, re.M)}


def test_the_document_is_what_the_table_prints(tmp_path):
    done = config(tmp_path, "--markdown")
    assert done.returncode == 0
    assert (ROOT / "docs/config.md").read_text(encoding="utf-8") == done.stdout


def test_every_setting_is_documented_printed_and_in_the_help(tmp_path):
    names = set(values_of(config(tmp_path)))
    documented = set(re.findall(r"^\| ([A-Z_0-9]+) \|", config(tmp_path, "--markdown").stdout, re.M))
    helped = subprocess.run([str(BINARY), "serve", "--help"], capture_output=True, text=True, check=True).stdout
    assert names == documented and len(names) > 30
    assert all(f"  {name} " in helped for name in names)


def test_the_defaults_that_users_know(tmp_path):
    values = values_of(config(tmp_path))
    known = {"PORT": "3000", "HOST": "127.0.0.1", "DATA_DIR": "./weir-data", "DATABASE_QUERY_TIMEOUT": "10",
             "SLOW_QUERY_MS": "1000", "WORKER_BATCH_SIZE": "50", "WORKER_BATCH_TIMEOUT": "0.5",
             "MAX_PAYLOAD_SIZE_MB": "0", "RETENTION_RAW_DAYS": "30", "PAYLOAD_WARNING_THRESHOLD_MB": "50",
             "PROCESSING_TIMEOUT_SECONDS": "120", "AUTH_CACHE_TTL_SECONDS": "300", "DISK_RESERVE_MB": "1024",
             "STORE_CACHE_MB": "32", "APPLY_PAUSED": "0"}
    assert {name: values[name] for name in known} == {name: (value, "default") for name, value in known.items()}


def test_the_environment_wins_over_the_file_and_the_file_over_the_default(tmp_path):
    (tmp_path / "weir.conf").write_text('# a comment\n\nPORT = 4000\nHOST="0.0.0.0"\nWORKER_BATCH_TIMEOUT=0.25\n')
    values = values_of(config(tmp_path, PORT="5000"))
    assert values["PORT"] == ("5000", "environment")
    assert values["HOST"] == ("0.0.0.0", "file")
    assert values["WORKER_BATCH_TIMEOUT"] == ("0.25", "file")
    assert values["LOG_LEVEL"] == ("info", "default")
    (tmp_path / "other.conf").write_text("PORT=6000\n")
    assert values_of(config(tmp_path, "--config", "other.conf"))["PORT"] == ("6000", "file")


def test_an_unknown_name_and_a_bad_line_are_refused_with_their_number(tmp_path):
    for text, number, said in (("PORT=1\nNO_SUCH_NAME=1\n", 2, "NO_SUCH_NAME"), ("\n\nPORT\n", 3, "NAME=value"),
                               ("PORT=-1\n", 1, "65535")):
        (tmp_path / "weir.conf").write_text(text)
        done = config(tmp_path)
        assert done.returncode == 1 and done.stdout == "" and done.stderr.count("\n") == 1
        assert f"line {number}" in done.stderr and said in done.stderr


def test_names_of_earlier_systems_are_taken_with_a_warning(tmp_path):
    (tmp_path / "weir.conf").write_text("ENABLE_ADAPTIVE_PROCESSING=1\nNATS_MAX_DELIVER=3\n")
    done = config(tmp_path)
    assert done.returncode == 0
    assert "ENABLE_ADAPTIVE_PROCESSING" in done.stderr and "NATS_MAX_DELIVER" in done.stderr


def test_no_secret_stands_in_the_settings(weir):
    server = weir()
    assert server.key not in server.command("config").stdout
