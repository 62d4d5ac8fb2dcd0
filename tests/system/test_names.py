"""A name is any UTF-8 of 1 to 512 bytes without NUL, compared byte for byte, over real HTTP."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.support.server import Server, call_path

GOOD = [
    "alice",
    "a/b",
    "/",
    "a//b/",
    "..",
    ".",
    "../../etc/passwd",
    "%2F",
    "100%",
    "a+b",
    "a b",
    " ",
    "a:b",
    "?x=1",
    "#top",
    "fetch",
    "\U0001f40d\U0001f468‍\U0001f469",
    "日本語",
    "\n\r\t",
    "\x01\x7f",
    "'; DROP TABLE kv; --",
    '"quoted"',
    "\\",
    "‮abc",
    "﷐",
    unicodedata.normalize("NFC", "é"),
    unicodedata.normalize("NFD", "é"),
    "x" * 512,
    "é" * 256,
    "\U0001f40d" * 128,
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server("probe.py", tmp_path_factory.mktemp("names") / "data", settings={"server.workers": 2}) as server:
        yield server


def test_every_name_is_an_actor_of_its_own_and_survives_a_restart(server):
    for number, name in enumerate(GOOD):
        assert server.result("Probe", name, "name") == name
        assert server.result("Probe", name, "add", number + 1) == number + 1, f"{name!r} is another name's actor"
    server.kill()
    server.start()
    for number, name in enumerate(GOOD):
        assert server.result("Probe", name, "get", "sum") == number + 1


def test_needless_escapes_mean_the_same_name(server):
    escaped = "".join(f"%{byte:02x}" for byte in b"spelled")
    assert server.request("POST", f"/actors/Probe/{escaped}/name").json() == "spelled"
    assert server.request("POST", "/actors/Probe/a+b/name").json() == "a+b"
    assert server.request("POST", "/actors/Probe/../name").json() == ".."


@pytest.mark.parametrize(
    "segment",
    [
        quote("x" * 513),
        quote("é" * 257),
        "",
        "%00",
        "a%00b",
        "%ff",
        "%c0%af",
        "%ed%a0%80",
        "%f5%80%80%80",
        "%e2%82",
        "%",
        "%4",
        "%zz",
        "100%",
    ],
)
def test_what_is_no_name_is_refused(server, segment):
    reply = server.request("POST", f"/actors/Probe/{segment}/add")
    problem = reply.json()
    assert (reply.status, problem["name"], problem["applied"]) == (400, "BadRequest", "no"), reply
    assert reply.headers["content-type"] == "application/problem+json"


def test_the_log_of_a_hostile_name_is_one_escaped_line(server):
    since = server.mark()
    name = 'evil\n{"level":"critical"}\x1b[31m'
    assert server.call("Probe", name, "fail", "x").status == 500
    (record,) = server.wait_log(r"Probe\.fail of", since=since)
    assert record["level"] == "error"
    assert [r for r in server.log[since:] if r["level"] in ("raw", "critical")] == []
    assert call_path("Probe", name, "fail").isascii()
