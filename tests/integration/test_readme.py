"""Promise: the README's "Try it" works as it stands there: the event that its first curl posts comes back from
its second, and the same dedup_id again gives the same id."""
import json
import os
import re
import subprocess

from black_box import drained
from conftest import ROOT


def commands():
    """The curl commands of the fences under "Try it"."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    part = re.search(r"^## Try it$(.*?)^## ", text, re.M | re.S).group(1)
    fences = re.findall(r"^```sh\n(.*?)^```$", part, re.M | re.S)
    return fences, [fence for fence in fences if fence.startswith("curl")]


def run(server, text):
    """In a shell, with the server's own port and key in the place of the document's."""
    done = subprocess.run(["bash", "-euc", text.replace("http://127.0.0.1:3000", server.url)], capture_output=True,
                          text=True, timeout=60, env={**os.environ, "KEY": server.key})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_curl_of_the_readme_round_trips(server):
    fences, curls = commands()
    assert len(curls) == 2
    posted = run(server, curls[0])
    assert posted["status"] == "accepted" and posted["durability"] == "fsync"
    drained(server)
    inbox = run(server, curls[1])
    sent = json.loads(re.search(r"-d '(.*?)'", curls[0], re.S).group(1))
    assert [one["id"] for one in inbox["events"]] == [posted["id"]]
    assert {name: inbox["events"][0][name] for name in sent} == sent
    assert run(server, curls[0])["id"] == posted["id"]
    drained(server)
    assert len(run(server, curls[1])["events"]) == 1


def test_the_two_commands_of_the_newcomer_are_there():
    fences, _ = commands()
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("run", "test"):
        assert f"make {target}\n" in fences
        assert re.search(rf"^{target}:", makefile, re.M)


def test_every_path_that_the_readme_names_exists():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for path in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / path).exists(), path
