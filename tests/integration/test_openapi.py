"""Promise: docs/openapi.yaml and the server have the same operations, each described whole."""
import http.client
import pathlib
import re

import pytest
import yaml

from conftest import ROOT

METHODS = ("get", "put", "post", "patch", "delete")


@pytest.fixture(scope="module")
def document(server):
    answer = server.get("/api/openapi.yaml", key=None)
    assert answer.status == 200
    return yaml.safe_load(answer.body)


def operations(document):
    return [(path, method, one) for path, item in document["paths"].items()
            for method, one in item.items() if method in METHODS]


def allowed(server, path):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("OPTIONS", path)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return set(re.split(r",\s*", answer.headers.get("Allow", ""))) - {"OPTIONS", "HEAD", ""}


def routes():
    """The rows of the server's own table."""
    text = (ROOT / "src/api/routes.c").read_text()
    return re.findall(r'X\((\w+), "([^"]+)", (\w+),', text)


def test_document_is_the_file(server):
    assert server.get("/api/openapi.yaml", key=None).body == (ROOT / "docs/openapi.yaml").read_bytes()


def test_every_described_operation_is_served(server, document):
    for path in document["paths"]:
        concrete = re.sub(r"{\w+}", "x", path)
        described = {method.upper() for method in document["paths"][path] if method in METHODS}
        assert allowed(server, concrete) == described, path


def test_every_route_is_described(document):
    described = {(method.upper(), path, one["operationId"]) for path, method, one in operations(document)}
    served = set(routes())
    assert len(served) >= 37
    assert served == described


def test_a_path_that_is_not_described_is_not_served(server):
    assert allowed(server, "/api/v1/nothing") == set()
    assert server.get("/api/v1/nothing").status == 404


def references(value):
    if isinstance(value, dict):
        for key, one in value.items():
            if key == "$ref":
                yield one
            else:
                yield from references(one)
    elif isinstance(value, list):
        for one in value:
            yield from references(one)


def test_document_is_whole(document):
    assert document["openapi"].startswith("3.1")
    names = [one["operationId"] for _, _, one in operations(document)]
    assert len(names) == len(set(names))
    for reference in references(document):
        at = document
        for part in reference.removeprefix("#/").split("/"):
            assert part in at, reference
            at = at[part]
    for path, method, one in operations(document):
        assert one["summary"] and one["responses"], (path, method)
        given = {parameter.get("name") for parameter in one.get("parameters", [])}
        given |= {reference.rsplit("/", 1)[1] for parameter in one.get("parameters", [])
                  for reference in references(parameter)}
        for name in re.findall(r"\{(\w+)\}", path):
            assert name in given, (path, method)


def test_open_routes_need_no_key_and_others_do(server, document):
    for path, method, one in operations(document):
        concrete = re.sub(r"{\w+}", "00000000-0000-0000-0000-000000000000", path)
        answer = server.request(method.upper(), concrete, key=None)
        if one.get("security") == []:
            assert answer.status != 401, (path, method)
        else:
            assert answer.status == 401, (path, method, answer)
            assert "www-authenticate" in answer.headers


def test_what_every_request_may_meet_is_described(document):
    """Key, scope, limits and `wait_for` come before a handler is called, and a body has its bounds."""
    for path, method, one in operations(document):
        given = {parameter["$ref"].rsplit("/", 1)[1] for parameter in one.get("parameters", []) if "$ref" in parameter}
        keyed = one.get("security") != []
        expected = {"401", "403", "429", "503"} if keyed else set()
        expected |= {"400", "504"} if "waitFor" in given else set()
        expected |= {"400", "413"} if one.get("requestBody") else set()
        assert expected <= set(one["responses"]), (path, method)
        assert "waitFor" in given or not keyed or method != "get", path
