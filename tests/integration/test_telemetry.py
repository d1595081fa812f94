"""Promise: what a registered device sends can be read back by (device, parameter, time), the newest stands, and
what does not fit the registry is kept as a dead letter with its reason."""
import json
import time

import pytest

from black_box import until

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


def test_one_reading_and_back(plant):
    at = ms(10)
    answer = plant.send({"project_id": plant.project["id"], "site_id": plant.site["id"],
                         "device_id": plant.device["id"].upper(), "protocol": "mqtt", "source_timestamp": iso(at),
                         "event_id": "e-1", "config_version": 3, "metadata": {"fw": "1.2"},
                         "metrics": [{"parameter_key": plant.voltage["key"], "value": 230.5, "quality": 192,
                                      "attributes": {"phase": "L1"}}]}, query="")
    assert answer.status == 200 and answer.json["status"] == "queued" and answer.json["durability"] == "fsync"
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
