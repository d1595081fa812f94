"""Promise: an org's settings are its own, checked whole, replaced whole, and survive a crash."""
import pytest

PATH = "/api/v1/settings"
DAYS = ("raw_days", "events_days", "readings_days", "rollups_days", "dead_letters_days")
DEFAULTS = {"timezone": "UTC", "units": "metric", "week_start": "monday", "source_priority": [], "silence_hours": None,
            "late_s": None, "retention": {name: None for name in DAYS}}
OTHERS = {"timezone": "America/Argentina/Buenos_Aires", "units": "imperial", "week_start": "sunday",
          "source_priority": ["Watch", "caf\u00e9 \"x\""], "silence_hours": 0, "late_s": 60,
          "retention": dict(zip(DAYS, (7, 365, 90, 400, 30)))}


def put(server, body, **options):
    return server.request("PUT", PATH, body, **options)


def test_defaults(server):
    assert server.get(PATH, key=server.new_org("settings-new")).json == DEFAULTS


def test_replaced_whole(server):
    key = server.new_org("settings-put")
    before = server.get(PATH, key=key).headers["etag"]
    answer = put(server, OTHERS, key=key)
    assert answer.status == 200 and answer.json == OTHERS, answer
    got = server.get(PATH, key=key)
    assert got.json == OTHERS and got.headers["etag"] != before
    assert server.get(PATH, key=key, headers={"If-None-Match": got.headers["etag"]}).status == 304
    assert put(server, {"units": "imperial"}, key=key).json == {**DEFAULTS, "units": "imperial"}
    assert put(server, {"retention": {"raw_days": None}, "late_s": None}, key=key).json == DEFAULTS
    assert server.get("/api/v1/audit", key=key).json["audit"][0]["action"] == "settings.replace"


def test_another_orgs(server):
    key = server.new_org("settings-other")
    put(server, OTHERS, key=key)
    assert server.get(PATH).json == DEFAULTS


@pytest.mark.parametrize("body, pointer", [
    ({"timezone": ""}, "/timezone"), ({"timezone": "../../etc"}, "/timezone"), ({"timezone": 7}, "/timezone"),
    ({"timezone": "x" * 65}, "/timezone"), ({"units": "nautical"}, "/units"), ({"week_start": "friday"}, "/week_start"),
    ({"source_priority": "Watch"}, "/source_priority"), ({"source_priority": [1]}, "/source_priority"),
    ({"source_priority": [""]}, "/source_priority"), ({"source_priority": ["x"] * 101}, "/source_priority"),
    ({"source_priority": ["x" * 256]}, "/source_priority"), ({"silence_hours": -1}, "/silence_hours"),
    ({"silence_hours": 8785}, "/silence_hours"), ({"late_s": 2**32 - 1}, "/late_s"), ({"late_s": 1.5}, "/late_s"), ({"retention": 7}, "/retention"),
    ({"retention": {"raw_days": "x"}}, "/retention/raw_days"), ({"retention": {"events_days": 36501}},
                                                                "/retention/events_days"), ({"colour": "red"}, ""),
    ({"retention": {"readings_days": 36501}}, "/retention/readings_days"),
    ({"retention": {"dead_letters_days": -1}}, "/retention/dead_letters_days"),
    ({"retention": {"rollups_days": 30}}, "/retention/rollups_days"),  # readings are kept for ever
    ({"retention": {"readings_days": 30, "rollups_days": 29}}, "/retention/rollups_days"),
])
def test_wrong_members(server, body, pointer):
    answer = put(server, body)
    assert answer.status == 422 and answer.json["errors"][0]["pointer"] == pointer, answer
    assert server.get(PATH).json == DEFAULTS


def test_who_may(server):
    reader = server.post("/api/keys", {"scopes": ["read:health"]}).json["api_key"]
    writer = server.post("/api/keys", {"scopes": ["write"]}).json["api_key"]
    assert server.get(PATH, key=reader).status == 200 and put(server, {}, key=reader).status == 403
    assert server.get(PATH, key=writer).status == 403 and put(server, {}, key=writer).status == 403


def test_survive_a_crash(weir):
    server = weir()
    assert put(server, OTHERS).status == 200
    server.kill()
    server.start()
    assert server.get(PATH).json == OTHERS
