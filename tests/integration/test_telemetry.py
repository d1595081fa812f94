"""Promise: what a registered device sends can be read back by (device, parameter, time), the newest stands, and
what does not fit the registry is kept as a dead letter with its reason."""
import concurrent.futures
import json
import sqlite3
import threading
import time

import pytest

from black_box import metric, until
from conftest import DURABILITY

NDJSON = {"Content-Type": "application/x-ndjson"}


class Plant:
    """A project, a site, one device, and parameters, of one org."""

    def __init__(self, server, name, key=True):
        self.server, self.key = server, key
        self.project = self.make("projects", name=name)
        self.site = self.make("sites", project_id=self.project["id"], name="north")
        self.device = self.make("devices", site_id=self.site["id"], name="meter", external_id=name + "-1")
        self.voltage = self.make("parameters", project_id=self.project["id"], name="Voltage", unit="V")

    def make(self, kind, **members):
        answer = self.server.post(f"/api/v1/{kind}", members, key=self.key)
        assert answer.status == 201, answer
        assert answer.headers["location"] == f"/api/v1/{kind}/{answer.json['id']}"
        return answer.json

    def message(self, value, at=None, parameter=None, **more):
        sent = {"device_id": self.device["id"],
                "metrics": [{"parameter_key": parameter or self.voltage["key"], "value": value}], **more}
        if at is not None:
            sent["source_timestamp"] = at
        return sent

    def send(self, body, query="?wait=stored", **options):
        return self.server.post("/v1/ingest" + query, body, key=self.key, **options)

    def readings(self, query=""):
        answer = self.server.get(f"/api/v1/readings?device_id={self.device['id']}{query}", key=self.key)
        assert answer.status == 200, answer
        return answer.json["readings"]


@pytest.fixture(scope="module")
def plant(server):
    return Plant(server, "plant")


def ms(ago_s=0):
    return int(time.time() * 1000) - int(ago_s * 1000)


def iso(wall_ms):
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(wall_ms // 1000)) + f".{wall_ms % 1000:03d}Z"


def letters(server, key=True):
    return server.get("/api/v1/dead-letters?limit=1000", key=key).json["dead_letters"]


def test_a_key_sees_uploads_and_letters_of_its_areas_alone(plant, server):
    """Who may write is told what became of what it sent; bodies and letters are for readers of their area."""
    keys = {scope: server.post("/api/keys", {"scopes": [scope]}).json["api_key"]
            for scope in ("read:events", "read:telemetry", "write:events", "write:telemetry", "read", "write")}
    body = "".join(json.dumps(plant.message(n, iso(ms(n + 10)), metadata={"fw": "x" * 200})) + "\n" for n in range(1500))
    sent = server.post("/v1/ingest?wait=stored", body, key=keys["write:telemetry"],
                       headers={"Content-Type": "application/x-ndjson"}).json
    lost = server.post("/v1/ingest?wait=stored", plant.message(1, parameter="nobody-knows"), key=keys["write"])
    assert lost.status in (200, 201), lost
    path = f"/api/v1/uploads/{sent['upload_id']}"
    seen = {scope: server.get(path, key=key).status for scope, key in keys.items()}
    assert seen == {"read:events": 404, "read:telemetry": 200, "write:events": 404, "write:telemetry": 200,
                    "read": 200, "write": 200}
    seen = {scope: server.get(path + "/raw", key=key).status for scope, key in keys.items()}
    assert seen == {"read:events": 404, "read:telemetry": 200, "write:events": 403, "write:telemetry": 403,
                    "read": 200, "write": 403}
    for scope, shown in (("read:events", False), ("read:telemetry", True), ("read", True)):
        listed = server.get("/api/v1/uploads?limit=1000", key=keys[scope])
        assert any(one["upload_id"] == sent["upload_id"] for one in listed.json["uploads"]) is shown
        assert any(one["kind"] == "reading" for one in letters(server, keys[scope])) is shown
        tag = server.get("/api/v1/uploads?limit=1000", key=keys["read"]).headers["etag"]
        again = server.get("/api/v1/uploads?limit=1000", key=keys[scope], headers={"If-None-Match": tag})
        assert (again.status == 304) is (scope == "read")
    lines = "".join(json.dumps({"type": "t", "payload": "z" * 500}) + "\n" for _ in range(1000))
    sent = server.post("/api/events/batch?wait=stored", lines, key=keys["write:events"],
                       headers={"Content-Type": "application/x-ndjson"}).json
    path = f"/api/v1/uploads/{sent['upload_id']}"
    assert [server.get(path, key=keys[scope]).status for scope in ("write:events", "read:telemetry")] == [200, 404]
    assert server.get(path + "/raw", key=keys["read:events"]).status == 200


def test_a_key_deletes_and_retries_what_is_of_its_areas_alone(plant, server):
    keys = {scope: server.post("/api/keys", {"scopes": [scope]}).json["api_key"]
            for scope in ("read", "write:events", "write:telemetry", "write")}
    body = "".join(json.dumps(plant.message(n, iso(ms(n + 10)), metadata={"fw": "x" * 200})) + "\n" for n in range(1500))
    lines = "".join(json.dumps({"type": "t", "payload": "z" * 500}) + "\n" for _ in range(1000))
    headers = {"Content-Type": "application/x-ndjson"}
    readings = server.post("/v1/ingest?wait=stored", body, headers=headers).json["upload_id"]
    events = server.post("/api/events/batch?wait=stored", lines, headers=headers).json["upload_id"]

    def delete(scope, upload):
        return server.request("DELETE", f"/api/v1/uploads/{upload}", key=keys[scope]).status

    assert [delete(scope, readings) for scope in ("read", "write:events", "write:telemetry")] == [403, 404, 204]
    assert [delete(scope, events) for scope in ("read", "write:telemetry", "write:events")] == [403, 404, 204]
    server.post("/v1/ingest?wait=stored", plant.message(1, parameter="nobody-knows-it"), key=keys["write"])
    letter = until(lambda: [one for one in letters(server) if "nobody-knows-it" in json.dumps(one["record"])])[0]["id"]
    tried = {scope: server.post(f"/api/v1/dead-letters/{letter}/retry", key=key).status for scope, key in keys.items()}
    assert tried == {"read": 403, "write:events": 404, "write:telemetry": 422, "write": 422}


def test_one_reading_and_back(plant):
    at = ms(10)
    answer = plant.send({"project_id": plant.project["id"], "site_id": plant.site["id"],
                         "device_id": plant.device["id"].upper(), "protocol": "mqtt", "source_timestamp": iso(at),
                         "event_id": "e-1", "config_version": 3, "metadata": {"fw": "1.2"},
                         "metrics": [{"parameter_key": plant.voltage["key"], "value": 230.5, "quality": 192,
                                      "attributes": {"phase": "L1"}}]}, query="")
    assert answer.status == 200 and answer.json["status"] == "queued" and answer.json["durability"] == DURABILITY
    assert len(answer.json["trace_id"]) == 36
    got = plant.server.get(f"/api/v1/readings?device_id={plant.device['id']}&latest=true"
                           f"&wait_for={answer.json['position']}").json
    assert got == {"readings": [{
        "device_id": plant.device["id"], "parameter_key": plant.voltage["key"], "time": iso(at), "value": 230.5,
        "quality": 192, "source": "MQTT", "event_id": "e-1",
        "attributes": {"config_version": 3, "metadata": {"fw": "1.2"}, "phase": "L1"}}], "next_cursor": None}


def test_the_registry_gives_what_it_took(server):
    plant = Plant(server, "registry")
    got = server.get(f"/api/v1/parameters/{plant.voltage['id']}").json
    assert got["key"] == f"project:{plant.project['id']}:voltage"
    assert (got["policy"], got["dtype"], got["required"], got["min"]) == ("flag", "float", False, None)
    device = server.get(f"/api/v1/devices/{plant.device['id']}").json
    assert device["project_id"] == plant.project["id"] and device["interval_s"] == 60
    again = server.post("/api/v1/projects", {"name": "registry"})
    assert again.status == 409 and again.json["code"] == "already_exists"
    changed = server.request("PATCH", f"/api/v1/devices/{device['id']}", {"status": "retired", "interval_s": 5})
    assert changed.status == 200 and changed.json["status"] == "retired" and changed.json["interval_s"] == 5
    assert changed.json["name"] == "meter"
    kept = server.request("DELETE", f"/api/v1/sites/{plant.site['id']}")
    assert kept.status == 409 and kept.json["code"] == "in_use"
    assert server.request("DELETE", f"/api/v1/devices/{device['id']}").status == 204
    assert server.get(f"/api/v1/devices/{device['id']}").status == 404
    listed = server.get(f"/api/v1/sites?project_id={plant.project['id']}").json
    assert [one["id"] for one in listed["sites"]] == [plant.site["id"]] and listed["next_cursor"] is None


@pytest.mark.sqlite_alone
def test_a_busy_store_is_nothing_in_use(weir):
    server = weir()
    project = server.post("/api/v1/projects", {"name": "alone"}).json
    database = sqlite3.connect(server.data_dir / "weir.db", isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    answer = server.request("DELETE", f"/api/v1/projects/{project['id']}")
    assert answer.status == 503 and answer.json["code"] == "unavailable", answer
    database.close()
    until(lambda: server.request("DELETE", f"/api/v1/projects/{project['id']}").status == 204)


def test_a_device_is_changed_while_its_readings_come(server):
    """Both take the org and the device's state in the same order, so neither is ended for the other."""
    plant = Plant(server, "changed while it speaks")
    is_over = threading.Event()

    def speak():
        value = 0
        while not is_over.is_set():
            value += 1
            assert server.post("/api/events", {"type": "speaks", "payload": value}).status == 202
            assert plant.send(plant.message(value)).status == 200

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        speakers = [pool.submit(speak) for _ in range(4)]
        try:
            for number in range(200):
                answer = server.request("PATCH", f"/api/v1/devices/{plant.device['id']}", {"interval_s": 60 + number})
                assert answer.status == 200, answer
        finally:
            is_over.set()
        for one in speakers:
            one.result()


@pytest.mark.parametrize("kind, body, pointer", [
    ("projects", {}, "/name"), ("projects", {"name": ""}, "/name"), ("projects", {"name": 5}, "/name"),
    ("sites", {"name": "a"}, "/project_id"), ("sites", {"name": "a", "project_id": "x"}, "/project_id"),
    ("sites", {"name": "a", "project_id": "00000000-0000-7000-8000-000000000000"}, "/project_id"),
    ("devices", {"name": "a", "interval_s": 0}, "/interval_s"),
    ("parameters", {"name": "a", "policy": "ignore"}, "/policy"),
    ("parameters", {"name": "a", "min": 2, "max": 1}, "/min"),
    ("parameters", {"name": "a", "required": "yes"}, "/required"),
])
def test_the_registry_says_what_is_wrong(plant, kind, body, pointer):
    if kind == "parameters":
        body = {"project_id": plant.project["id"], **body}
    answer = plant.server.post(f"/api/v1/{kind}", body)
    assert answer.status == 422 and answer.json["errors"][0]["pointer"] == pointer, answer


@pytest.mark.parametrize("change, pointer", [
    ({"device_id": None}, "/device_id"), ({"device_id": "meter"}, "/device_id"), ({"metrics": []}, "/metrics"),
    ({"metrics": {}}, "/metrics"), ({"metrics": [5]}, "/metrics/0"),
    ({"metrics": [{"value": 1}]}, "/metrics/0/parameter_key"), ({"metrics": [{"parameter_key": "a"}]}, "/metrics/0/value"),
    ({"metrics": [{"parameter_key": "a", "value": "1"}]}, "/metrics/0/value"),
    ({"metrics": [{"parameter_key": "a", "value": 1, "quality": 256}]}, "/metrics/0/quality"),
    ({"metrics": [{"parameter_key": "a", "value": 1}, {"parameter_key": "a", "value": 1, "attributes": 5}]},
     "/metrics/1/attributes"),
    ({"protocol": "FAX"}, "/protocol"), ({"source_timestamp": "yesterday"}, "/source_timestamp"),
    ({"site_id": "x"}, "/site_id"),
])
def test_a_message_that_is_wrong(plant, change, pointer):
    answer = plant.send({**plant.message(1), **change})
    assert answer.status == 422 and answer.json["errors"][0]["pointer"] == pointer, answer


def test_a_body_that_is_no_json(plant):
    answer = plant.send('{"device_id": ', headers={"Content-Type": "application/json"})
    assert answer.status == 400 and answer.json["code"] == "malformed"


def test_the_last_of_a_key_stands(server):
    plant = Plant(server, "upsert")
    at = ms(60)
    for value in (1, 2, 3):
        assert plant.send(plant.message(value, at)).json["status"] == "stored"
    assert [(one["time"], one["value"]) for one in plant.readings()] == [(iso(at), 3)]


def test_arrays_and_lines(server):
    plant = Plant(server, "arrays")
    base = ms(3600)
    array = [plant.message(n, base + n) for n in range(3)]
    answer = plant.send(array)
    assert answer.status == 200 and answer.json["status"] == "stored" and answer.json["accepted"] == 3
    lines = "".join(json.dumps(plant.message(n, base + n)) + "\n" for n in range(3, 6))
    assert plant.send(lines, headers=NDJSON).json["accepted"] == 3
    assert [one["value"] for one in plant.readings("&order=asc")] == [0, 1, 2, 3, 4, 5]
    assert [one["value"] for one in plant.readings("&order=desc&limit=2")] == [5, 4]
    partly = plant.send([plant.message(9, base + 9), {"metrics": []}])
    assert partly.status == 200 and partly.json["accepted"] == 1 and partly.json["rejected"] == 1


def test_an_upload_of_readings(server):
    plant = Plant(server, "upload")
    base = ms(7200)
    count = 4000
    lines = "".join(json.dumps(plant.message(n, base + n)) + "\n" for n in range(count))
    assert len(lines) > 256 * 1024
    answer = plant.send(lines, headers=NDJSON)
    assert answer.status == 200 and answer.json["upload_id"]
    until(lambda: len(plant.readings("&limit=100000")) == count)
    assert [one["value"] for one in plant.readings("&limit=100000")] == list(range(count))


def test_pages_of_readings(server):
    plant = Plant(server, "pages")
    plant.make("parameters", project_id=plant.project["id"], name="current")
    base = ms(7200)
    plant.send([plant.message(n, base + n, parameter) for n in range(25) for parameter in ("voltage", "current")])
    for order in ("asc", "desc"):
        seen, cursor = [], ""
        while True:
            page = server.get(f"/api/v1/readings?device_id={plant.device['id']}&limit=7&order={order}{cursor}").json
            seen += [(one["parameter_key"], one["value"]) for one in page["readings"]]
            if page["next_cursor"] is None:
                break
            assert page["truncated"] is True
            cursor = "&cursor=" + page["next_cursor"]
        assert len(seen) == 50 and len(set(seen)) == 50
        numbers = [value for key, value in seen if key.endswith("voltage")]
        assert numbers == sorted(range(25), reverse=order == "desc")
    answer = server.get("/api/v1/readings?cursor=abc")
    assert answer.status == 400 and answer.json["code"] == "bad_query"


def test_null_is_a_value(server):
    plant = Plant(server, "null")
    assert plant.send(plant.message(None)).json["status"] == "stored"
    assert plant.readings()[0]["value"] is None


def test_what_nobody_registered_is_a_dead_letter(server):
    plant = Plant(server, "letters")
    unknown = {**plant.message(1), "device_id": "00000000-0000-7000-8000-000000000001"}
    assert plant.send(unknown).json["status"] == "dead_letter"
    assert plant.send(plant.message(1, parameter="current")).json["status"] == "dead_letter"
    other = Plant(server, "letters-2")
    assert plant.send({**plant.message(1), "site_id": other.site["id"]}).json["status"] == "dead_letter"
    assert plant.send(plant.message(1, parameter=other.voltage["key"])).json["status"] == "dead_letter"
    assert plant.send(plant.message(1, ms(-25 * 3600))).json["status"] == "dead_letter"
    assert plant.send(plant.message(1, ms(91 * 86400))).json["status"] == "dead_letter"
    found = letters(server)[:6]
    assert [one["reason"] for one in found] == ["too_old", "too_far_ahead", "unknown_parameter", "wrong_site",
                                                "unknown_parameter", "unknown_device"]
    assert {one["kind"] for one in found} == {"reading"} and found[5]["record"] == unknown
    assert plant.readings() == []


def test_readings_of_another_org(server):
    plant = Plant(server, "ours")
    theirs = Plant(server, "theirs", key=server.new_org("other"))
    assert theirs.send({**theirs.message(5), "device_id": plant.device["id"]}).json["status"] == "dead_letter"
    assert letters(server, theirs.key)[0]["reason"] == "unknown_device"
    assert plant.readings() == []
    for path in (f"readings?device_id={plant.device['id']}", f"readings?site_id={plant.site['id']}",
                 f"devices/{plant.device['id']}", f"parameters/{plant.voltage['id']}"):
        assert server.get("/api/v1/" + path, key=theirs.key).status == 404, path


def test_what_a_message_names_is_kept_beside_what_it_does_not(server):
    plant = Plant(server, "mixed")
    sent = plant.message(7)
    sent["metrics"].append({"parameter_key": "current", "value": 1})
    assert plant.send(sent).json["status"] == "dead_letter"
    assert [one["value"] for one in plant.readings()] == [7]
    letter = letters(server)[0]
    assert letter["detail"] == "/metrics/1" and letter["record"] == sent


def test_a_key_of_a_device(server):
    plant = Plant(server, "keys")
    other = plant.make("devices", site_id=plant.site["id"], name="other")
    made = server.post("/api/keys", {"name": "meter", "device_id": plant.device["id"]})
    assert made.status == 201 and made.json["device_id"] == plant.device["id"]
    key = made.json["api_key"]
    assert plant.send(plant.message(1)).status == 200
    mine = server.post("/v1/ingest?wait=stored", plant.message(2, ms(5)), key=key)
    assert mine.status == 200 and mine.json["status"] == "stored"
    wrong = server.post("/v1/ingest", {**plant.message(3), "device_id": other["id"]}, key=key)
    assert wrong.status == 403, wrong
    many = server.post("/v1/ingest?wait=stored", [{**plant.message(4, ms(4)), "device_id": other["id"]},
                                                  plant.message(5, ms(3))], key=key)
    assert many.status == 200 and many.json["accepted"] == 1 and many.json["rejected"] == 1
    assert sorted(one["value"] for one in plant.readings()) == [1, 2, 5]
    assert server.get(f"/api/v1/readings?device_id={other['id']}").json["readings"] == []
    assert server.get("/api/v1/readings", key=key).status == 403
    assert server.post("/api/events", {"type": "a", "payload": 1}, key=key).status == 403
    nobody = server.post("/api/keys", {"device_id": "00000000-0000-7000-8000-000000000001"})
    assert nobody.status == 404


REGISTRY = ("customer_name,project_name,project_description,site_name,site_location,device_name,device_type,"
            "device_code,device_status\n")
PARAMETERS = "customer_name,project_name,parameter_name,unit,dtype,min_value,max_value,required,description\n"
CSV = {"Content-Type": "text/csv"}


def upload(server, kind, text, key=True, query=""):
    return server.post(f"/api/v1/{kind}/import{query}", text, key=key, headers=CSV)


def test_a_registry_comes_and_goes_as_csv(server):
    key = server.new_org("csv")
    text = REGISTRY + ('csv,Grid,"The ""big"" one",North,"{""lat"": 1.5}",Meter 1,modem,M-1,active\r\n'
                       'csv,Grid,,North,,"Meter, 2",plc,M-2,maintenance\r\n'
                       ",Grid,,South,Hill,,,,\r\n")
    answer = upload(server, "registry", text, key)
    assert answer.status == 200, answer
    assert answer.json == {"lines": 3, "created": {"projects": 1, "sites": 2, "devices": 2, "parameters": 0},
                           "updated": {"projects": 0, "sites": 0, "devices": 0, "parameters": 0}}
    again = upload(server, "registry", text, key)
    assert again.json["created"] == again.json["updated"] == {"projects": 0, "sites": 0, "devices": 0, "parameters": 0}
    out = server.get("/api/v1/registry/export", key=key)
    assert out.headers["content-type"].startswith("text/csv")
    assert out.body.decode() == REGISTRY.replace("\n", "\r\n") + (
        'csv,Grid,"The ""big"" one",North,"{""lat"": 1.5}",Meter 1,modem,M-1,active\r\n'
        'csv,Grid,"The ""big"" one",North,"{""lat"": 1.5}","Meter, 2",plc,M-2,maintenance\r\n'
        'csv,Grid,"The ""big"" one",South,Hill,,,,\r\n')
    changed = upload(server, "registry", REGISTRY + "csv,Grid,,North,,Meter 1,gateway,M-1,active\n", key)
    assert changed.json["updated"]["devices"] == 1 and changed.json["created"]["devices"] == 0
    devices = server.get("/api/v1/devices?external_id=M-1", key=key).json["devices"]
    assert [one["device_type"] for one in devices] == ["gateway"]
    sites = {one["name"]: one["location"] for one in server.get("/api/v1/sites", key=key).json["sites"]}
    assert sites == {"North": {"lat": 1.5}, "South": "Hill"}
    copy = upload(server, "registry", out.body, server.new_org("csv-2"))
    assert copy.status == 422 and copy.json["errors"][0] == {
        "pointer": "/2/customer_name", "code": "other_customer",
        "message": "It is not the name of this org; a customer is an org."}


def test_parameters_come_and_go_as_csv(server):
    key = server.new_org("csv-parameters")
    text = PARAMETERS + ("csv-parameters,Grid,Bus Voltage,V,float,-10.5,400,true,between L1 and N\r\n"
                         "csv-parameters,Grid,=Current,A,float,,,false,\r\n")
    answer = upload(server, "parameters", text, key)
    assert answer.status == 200 and answer.json["created"]["parameters"] == 2, answer
    out = server.get("/api/v1/parameters/export", key=key).body.decode()
    assert out == (PARAMETERS + text[len(PARAMETERS):]).replace("=Current", "'=Current").replace("\r\n", "\n").replace("\n", "\r\n")
    assert upload(server, "parameters", out, key).json["updated"]["parameters"] == 0
    found = {one["name"]: one for one in server.get("/api/v1/parameters", key=key).json["parameters"]}
    assert found["Bus Voltage"]["key"].endswith(":bus_voltage")
    assert (found["Bus Voltage"]["min"], found["Bus Voltage"]["max"], found["Bus Voltage"]["required"]) == (-10.5, 400, True)
    assert found["=Current"]["min"] is None


def test_a_file_with_wrong_lines_leaves_nothing(server):
    key = server.new_org("csv-wrong")
    good = "".join(f"csv-wrong,P,,S,,device {n},modem,code-{n},active\n" for n in range(20))
    wrong = ("csv-wrong,,,S,,d,,,\n" "csv-wrong,P,,S,,x\n" 'csv-wrong,P,"a"b,S,,y,,,\n'
             "csv-wrong,P,,S,,other,,code-3,\n" "csv-wrong,P,,,,device,,,\n" "elsewhere,P,,S,,z,,,\n")
    answer = upload(server, "registry", REGISTRY + good + wrong, key)
    assert answer.status == 422 and answer.json["code"] == "invalid"
    assert (answer.json["lines"], answer.json["wrong_lines"]) == (26, 6)
    assert [(one.get("pointer"), one["code"]) for one in answer.json["errors"]] == [
        ("/22/project_name", "missing_field"), ("/23", "malformed"), ("/24", "malformed"),
        ("/25/device_code", "already_exists"), ("/26/site_name", "missing_field"),
        ("/27/customer_name", "other_customer")]
    for kind in ("projects", "sites", "devices"):
        assert server.get(f"/api/v1/{kind}", key=key).json[kind] == []
    assert upload(server, "registry", REGISTRY + good, key).json["created"]["devices"] == 20


@pytest.mark.parametrize("text, code", [
    ("", "malformed"), ("nonsense\n", "unknown_column"), ("project_name,site_name\n", "missing_column"),
    (REGISTRY.replace("\n", ",site_name\n"), "duplicate_column"),
])
def test_a_header_that_is_wrong(server, text, code):
    answer = upload(server, "registry", text)
    assert answer.status == 422 and code in [one["code"] for one in answer.json["errors"]], answer


def test_an_import_is_bounded_and_typed(server):
    assert server.post("/api/v1/registry/import", {}).status == 415
    assert upload(server, "registry", "x" * (4 * 1024 * 1024 + 1)).status == 413
    assert upload(server, "registry", REGISTRY, query="?customer_id=00000000-0000-7000-8000-000000000000").status == 404


def test_published_versions(server):
    import hashlib
    plant = Plant(server, "versions")
    path = f"/api/v1/projects/{plant.project['id']}/versions"
    first = server.post(path + "/publish")
    assert first.status == 201 and first.json["version"] == 1 and first.headers["location"] == path + "/1"
    again = server.post(path + "/publish").json
    assert again["version"] == 2 and again["checksum"] == first.json["checksum"]
    plant.make("devices", site_id=plant.site["id"], name="new")
    third = server.post(path + "/publish").json
    assert third["version"] == 3 and third["checksum"] != first.json["checksum"]
    one = server.get(path + "/3")
    config = one.body.decode().split('"config":', 1)[1][:-1]
    assert hashlib.sha256(config.encode()).hexdigest() == one.json["checksum"] == third["checksum"]
    assert [d["name"] for d in one.json["config"]["devices"]] == ["meter", "new"]
    assert one.json["config"]["parameters"][0]["key"] == plant.voltage["key"]
    listed = server.get(path + "?limit=2").json
    assert [v["version"] for v in listed["versions"]] == [3, 2]
    rest = server.get(path + "?cursor=" + listed["next_cursor"]).json
    assert [v["version"] for v in rest["versions"]] == [1] and rest["next_cursor"] is None
    assert server.get(path + "/4").status == 404
    assert server.get(path, key=server.new_org("versions-2")).status == 404


def test_what_changed_between_two_versions(server):
    plant = Plant(server, "diff")
    gone = plant.make("devices", site_id=plant.site["id"], name="gone")
    path = f"/api/v1/projects/{plant.project['id']}/versions"
    assert server.post(path + "/publish").json["version"] == 1
    assert server.get(path + "/1/diff/1").json["changes"] == []
    server.request("DELETE", f"/api/v1/devices/{gone['id']}")
    added = plant.make("devices", site_id=plant.site["id"], name='ne"w')
    assert server.request("PATCH", f"/api/v1/devices/{plant.device['id']}", {"status": "retired"}).status == 200
    assert server.request("PATCH", f"/api/v1/sites/{plant.site['id']}", {"location": {"lat": [1, {"x": "}"}]}}).status == 200
    assert server.request("PATCH", f"/api/v1/projects/{plant.project['id']}", {"description": "caf\u00e9"}).status == 200
    assert server.post(path + "/publish").json["version"] == 2

    def fields(name, old, new):
        return [{"field": name, "from": old, "to": new}]

    def named(kind, change, what):
        return {"kind": kind, "change": change, "id": what["id"], "name": what["name"]}

    got = server.get(path + "/1/diff/2")
    assert got.json == {"project_id": plant.project["id"], "from": 1, "to": 2, "changes": [
        {**named("projects", "changed", plant.project), "fields": fields("description", None, "caf\u00e9")},
        {**named("sites", "changed", plant.site), "fields": fields("location", None, {"lat": [1, {"x": "}"}]})},
        {**named("devices", "changed", plant.device), "fields": fields("status", "active", "retired")},
        named("devices", "removed", gone), named("devices", "added", added)]}
    back = server.get(path + "/2/diff/1").json["changes"]
    assert [(one["kind"], one["change"]) for one in back] == [
        ("projects", "changed"), ("sites", "changed"), ("devices", "changed"), ("devices", "added"), ("devices", "removed")]
    assert back[2]["fields"] == fields("status", "retired", "active")
    assert server.get(path + "/1/diff/2", headers={"If-None-Match": got.headers["etag"]}).status == 304
    for wrong in ("/1/diff/3", "/3/diff/1", "/0/diff/1", "/1/diff/x"):
        assert server.get(path + wrong).status == 404
    assert server.get(path + "/1/diff/2", key=server.new_org("diff-other")).status == 404


def test_policies(server):
    plant = Plant(server, "policies")
    for policy in ("reject", "clamp", "flag"):
        plant.make("parameters", project_id=plant.project["id"], name=policy, policy=policy, min=0, max=10)
    at = ms(30)
    for policy in ("reject", "clamp", "flag"):
        for n, value in enumerate((-1, 0, 10, 11)):
            plant.send(plant.message(value, at + n, policy))
    found = {policy: [(one["value"], one.get("flags")) for one in plant.readings(f"&parameter={policy}")]
             for policy in ("reject", "clamp", "flag")}
    assert found["reject"] == [(0, None), (10, None)]
    assert found["clamp"] == [(0, ["clamped"]), (0, None), (10, None), (10, ["clamped"])]
    assert found["flag"] == [(-1, ["out_of_range"]), (0, None), (10, None), (11, ["out_of_range"])]
    assert [one["reason"] for one in letters(server)[:2]] == ["out_of_range"] * 2


def test_late_readings_are_flagged(server):
    plant = Plant(server, "late")
    plant.send([plant.message(1, ms(290)), plant.message(2, ms(310))])
    assert [(one["value"], one.get("flags")) for one in plant.readings()] == [(2, ["late"]), (1, None)]


def test_a_dead_letter_is_tried_again(server):
    plant = Plant(server, "retry")
    at = ms(20)
    plant.send({**plant.message(5, at, "current"), "metadata": {"a": 1}})
    letter = letters(server)[0]
    path = f"/api/v1/dead-letters/{letter['id']}/retry"
    assert server.post(path).status == 422
    assert plant.readings() == []
    plant.make("parameters", project_id=plant.project["id"], name="current")
    plant.send(plant.message(6, at, "current"))
    assert server.post(path).status == 200
    got = plant.readings()
    assert [one["value"] for one in got] == [6], "the letter is older than what stands"
    assert server.post(path).status == 404


def bucket_of(values):
    return {"n": len(values), "avg": sum(values) / len(values), "min": min(values), "max": max(values),
            "sum": sum(values), "last": values[-1]}


@pytest.mark.parametrize("bucket, width", [("1m", 60), ("5m", 300), ("1h", 3600), ("1d", 86400)])
def test_buckets(server, bucket, width):
    import random
    plant = Plant(server, "buckets-" + bucket)
    seed = random.randrange(1 << 30)
    print("seed", seed)
    rng = random.Random(seed)
    base = (ms(3 * 86400) // 86400000) * 86400000
    rows = {base + rng.randrange(2 * 86400) * 1000: rng.randrange(-1000, 1000) / 4 for _ in range(400)}
    messages = [plant.message(value, at) for at, value in rows.items()]
    rng.shuffle(messages)

    def expected():
        found = {}
        for at in sorted(rows):
            found.setdefault(at // (width * 1000), []).append(rows[at])
        return [{"start": iso(start * width * 1000), "end": iso((start + 1) * width * 1000), **bucket_of(values)}
                for start, values in sorted(found.items())]

    def actual(more=""):
        page = server.get(f"/api/v1/readings?device_id={plant.device['id']}&bucket={bucket}&agg=max{more}").json
        assert all(one["value"] == one["max"] for one in page["points"])
        keys = ("start", "end", "n", "avg", "min", "max", "sum", "last")
        return [{key: one[key] for key in keys} for one in page["points"]]

    for part in range(0, 400, 100):
        plant.send(messages[part:part + 100])
    assert actual() == expected(), "while minutes are dirty"
    assert actual("&order=desc") == expected()[::-1]
    at = rng.choice(list(rows))
    rows[at] += 0.25
    plant.send(plant.message(rows[at], at))
    assert actual() == expected()
    until(lambda: dirty(server) == 0)
    assert actual() == expected(), "from the stored ones"
    assert actual("&order=desc") == expected()[::-1]


def dirty(server):
    return server.number_in_store("SELECT count(*) FROM rollup_dirty")


def test_any_order_and_any_repetition_give_the_same(server):
    import random
    seed = random.randrange(1 << 30)
    print("seed", seed)
    rng = random.Random(seed)
    base = ms(4000)
    sent = [(base + n * 7000, n * 0.1) for n in range(200)]
    answers = []
    for turn in range(3):
        plant = Plant(server, f"order-{turn}")
        messages = [plant.message(value, at, event_id=f"e{at}") for at, value in sent] * 2
        rng.shuffle(messages)
        while messages:
            size = rng.randrange(1, 60)
            plant.send(messages[:size])
            messages = messages[size:]
        if turn != 1:
            until(lambda: dirty(server) == 0)
        raw = [(one["time"], one["value"]) for one in plant.readings()]
        points = server.get(f"/api/v1/readings?device_id={plant.device['id']}&bucket=5m").json["points"]
        answers.append((raw, [(one["start"], one["n"], one["sum"], one["avg"], one["last"]) for one in points]))
    assert len(answers[0][0]) == 200
    assert answers[0] == answers[1] == answers[2]


def test_packet_health(server):
    plant = Plant(server, "packets")
    quiet = plant.make("devices", site_id=plant.site["id"], name="quiet")
    plant.make("devices", site_id=plant.site["id"], name="retired", status="retired")
    plant.make("parameters", project_id=plant.project["id"], name="current")
    now = ms()
    # One packet a minute for the last hour but 3, two metrics each; packets are late beyond 2 intervals.
    plant.send([{**plant.message(n, now - 1000 - n * 60000),
                 "metrics": [{"parameter_key": name, "value": n} for name in ("voltage", "current")]}
                for n in range(57)])
    page = server.get(f"/api/v1/devices/health?site_id={plant.site['id']}").json
    assert [one["device_name"] for one in page["devices"]] == ["meter", "quiet"] and page["next_cursor"] is None
    meter, silent = page["devices"]
    assert (meter["expected"], meter["received"], meter["missing"]) == (60, 57, 3)
    assert meter["late"] == 55 and meter["on_time_percent"] == pytest.approx(2 / 60 * 100)
    assert meter["status"] == "WARNING" and meter["silent"] is False and meter["last_time"] == iso(now - 1000)
    assert (silent["received"], silent["silent"], silent["status"], silent["last_time"]) == (0, True, "CRITICAL", None)
    site = server.get(f"/api/v1/sites/{plant.site['id']}/health").json
    assert (site["configured"], site["ok"], site["warning"], site["critical"], site["silent"]) == (2, 0, 1, 1, 1)
    assert site["error_score"] == 4 and site["error_status"] == "WARNING" and site["status"] == "WARNING"
    assert (site["expected"], site["received"], site["missing"], site["late"]) == (120, 57, 63, 55)
    assert server.request("PATCH", f"/api/v1/devices/{quiet['id']}", {"status": "retired"}).status == 200
    plant.send([plant.message(n, now - 1000 - n * 60000) for n in range(57, 60)])
    site = server.get(f"/api/v1/sites/{plant.site['id']}/health").json
    assert (site["ok"], site["configured"], site["status"], site["error_score"]) == (1, 1, "OK", 0)
    other = server.new_org("packets-2")
    assert server.get(f"/api/v1/sites/{plant.site['id']}/health", key=other).status == 404
    assert server.get(f"/api/v1/devices/health?device_id={quiet['id']}", key=other).status == 404
    assert server.get("/api/v1/devices/health?hours=0").status == 400


def test_the_state_of_the_queue(server):
    answer = server.get("/v1/health", key=None)
    assert answer.status == 200 and answer.json["db"] == "ok" and answer.json["service"] == "ok"
    assert set(answer.json["queue"]) == {"consumer", "pending", "ack_pending", "redelivered"}
    assert answer.json["queue"]["redelivered"] == int(metric(server, "ingest_consumer_redelivered_total"))


@pytest.mark.seconds(6)
def test_a_device_falls_silent_and_comes_back(server):
    plant = Plant(server, "silence")
    server.request("PATCH", f"/api/v1/devices/{plant.device['id']}", {"interval_s": 1})
    plant.send(plant.message(1))

    def told(kind):
        found = server.get(f"/api/v1/events?type={kind}&subject={plant.device['id']}").json["events"]
        return found

    silent = until(lambda: told("device.silent"))
    assert len(silent) == 1 and silent[0]["source"] == "weir"
    payload = silent[0]["payload"]
    assert payload["device_id"] == plant.device["id"] and payload["external_id"] == "silence-1"
    assert payload["site_id"] == plant.site["id"] and payload["interval_s"] == 1 and "back_at" not in payload
    assert told("device.back") == []
    plant.send(plant.message(2))
    back = told("device.back")
    assert len(back) == 1 and back[0]["payload"]["last_received_at"] == payload["last_received_at"]
    assert back[0]["payload"]["silent_at"] == payload["silent_at"] and back[0]["payload"]["back_at"]
    until(lambda: len(told("device.silent")) == 2)
    assert len(told("device.back")) == 1


def settings(server, body):
    answer = server.request("PUT", "/api/v1/settings", body)
    assert answer.status == 200, answer


@pytest.mark.seconds(6)
def test_silence_is_what_the_org_says(weir):
    server = weir()
    plant = Plant(server, "hours")
    server.request("PATCH", f"/api/v1/devices/{plant.device['id']}", {"interval_s": 1})
    settings(server, {"silence_hours": 0})
    plant.send(plant.message(1))
    other = Plant(server, "no-hours", server.new_org("no-hours"))  # tells when the same look has been made
    server.request("PATCH", f"/api/v1/devices/{other.device['id']}", {"interval_s": 1}, key=other.key)
    other.send(other.message(1))
    until(lambda: server.get("/api/v1/events?type=device.silent", key=other.key).json["events"])
    assert server.get("/api/v1/events?type=device.silent").json["events"] == []
    settings(server, {})
    plant.send(plant.message(2))
    until(lambda: server.get("/api/v1/events?type=device.silent").json["events"])


def test_late_is_what_the_org_says(weir):
    server = weir()
    plant = Plant(server, "late-s")

    def late():
        found = server.get(f"/api/v1/devices/health?device_id={plant.device['id']}").json["devices"][0]
        return found["late"]

    settings(server, {"late_s": 1000})
    plant.send(plant.message(1, ms(900)))
    assert late() == 0
    settings(server, {"late_s": 60})
    plant.send(plant.message(2, ms(70)))
    assert [(one["value"], one.get("flags")) for one in plant.readings()] == [(1, None), (2, ["late"])]
    assert late() == 2
    settings(server, {})  # two intervals of a minute
    assert late() == 1


def test_silence_is_found_after_a_restart(weir):
    server = weir()
    plant = Plant(server, "restart")
    server.request("PATCH", f"/api/v1/devices/{plant.device['id']}", {"interval_s": 1})
    plant.send(plant.message(1))
    server.kill()
    server.start()
    until(lambda: server.get("/api/v1/events?type=device.silent").json["events"])
    assert [one["value"] for one in plant.readings()] == [1]


def test_readings_survive_a_kill(weir):
    """What was answered is there once, although it was not applied yet."""
    server = weir()
    plant = Plant(server, "kill")
    server.stop()
    server.settings["APPLY_PAUSED"] = "1"
    server.start()
    base = ms(600)
    for n in range(50):
        assert plant.send(plant.message(n, base + n * 1000, event_id=f"k{n}"), query="").status == 200
    server.kill()
    del server.settings["APPLY_PAUSED"]
    server.start()
    until(lambda: len(plant.readings()) == 50)
    assert [one["value"] for one in plant.readings()] == list(range(50))


def test_exports(server):
    key = server.new_org("scada")
    plant = Plant(server, "scada-project", key)
    base = ms(5000)
    base -= base % 1000
    count = 3000
    plant.send([plant.message(n / 2, base + n, quality=0) if n else {**plant.message(0, base), "protocol": "SMS"}
                for n in range(count)])
    until(lambda: len(plant.readings("&limit=100000")) == count)
    csv = server.get("/api/v1/export/readings", key=key)
    lines = csv.body.decode().split("\r\n")
    assert csv.headers["content-disposition"].startswith('attachment; filename="scada_history_')
    assert lines[0] == "device_id,parameter_key,time,value,quality,source" and lines[-1] == ""
    assert lines[1] == f"{plant.device['id']},{plant.voltage['key']},{iso(base)},0,,SMS"
    assert lines[2:-1] == [f"{plant.device['id']},{plant.voltage['key']},{iso(base + n)},{n / 2:g},,"
                           for n in range(1, count)]
    latest = server.get("/api/v1/export/readings?latest=true&readable=true&format=txt", key=key)
    assert 'filename="scada_latest_readable_' in latest.headers["content-disposition"]
    head, row, end = latest.body.decode().split("\r\n")
    assert head.split("\t") == ["customer", "project", "site", "device_name", "device_code", "device_type", "parameter",
                                "parameter_key", "unit", "timestamp", "value", "quality", "source"]
    assert row.split("\t") == ["scada", "scada-project", "north", "meter", "scada-project-1", "", "Voltage",
                               plant.voltage["key"], "V", iso(base + count - 1), f"{(count - 1) / 2:g}", "", ""]
    rows = [json.loads(line) for line in server.get("/api/v1/readings?format=ndjson", key=key).body.splitlines()]
    assert [one["value"] for one in rows] == [n / 2 for n in range(count)]
    whole = server.get("/api/v1/export/readings?format=json&order=desc", key=key).json
    assert whole["record_count"] == count == len(whole["readings"]) and whole["readings"][0]["value"] == (count - 1) / 2
    assert server.get("/api/v1/readings?format=rows&limit=2", key=key).json == [
        {"time": iso(base), "value": 0}, {"time": iso(base + 1), "value": 0.5}]
    points = server.get(f"/api/v1/readings?max_points=10&start={base}&end={base + 3000}", key=key).json
    assert points["bucket"] == "1m" and sum(one["n"] for one in points["points"]) == count
    again = server.get("/api/v1/export/readings?readable=true", key=key)
    assert server.get("/api/v1/export/readings?readable=true", key=key, headers={
        "If-None-Match": again.headers["etag"]}).status == 304
