"""JSON that is made to hurt: refused with a 400 or taken exactly, and the link to the worker stays."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.server import Server, call_path

PROGRAM = Path(__file__).parent / "programs" / "hostile.py"
JSON = {"Content-Type": "application/json"}
DEEP = 10_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {"server.workers": 1, "storage.shards": 1}
    with Server(PROGRAM, tmp_path_factory.mktemp("json") / "data", settings=settings) as server:
        yield server


def post(server: Server, method: str, body: bytes) -> tuple[int, bytes]:
    reply = server.request("POST", call_path("Hostile", "json", method), body, JSON)
    if reply.status != 200:
        assert (reply.status, reply.json()["applied"]) == (400, "no"), reply
    return reply.status, reply.body


REFUSED = {
    "arrays-10000-deep": b"[" * DEEP + b"]" * DEEP,
    "objects-10000-deep": b'{"value":' * DEEP + b"1" + b"}" * DEEP,
    "arrays-10000-deep-in-a-parameter": b'{"value":' + b"[" * DEEP + b"]" * DEEP + b"}",
    "arrays-never-closed": b"[" * DEEP,
    "integer-of-a-million-digits": b"[" + b"9" * 1_000_000 + b"]",
    "float-beyond-a-double": b"[1e999]",
    "exponent-of-many-digits": b"[1e" + b"9" * 100 + b"]",
    "lone-high-surrogate": b'["\\ud800"]',
    "lone-low-surrogate": b'["\\udc00 x"]',
    "surrogates-in-the-wrong-order": b'["\\udc0d\\ud83d"]',
    "surrogate-as-utf-8": b'["\xed\xa0\x80"]',
    "overlong-utf-8": b'["\xc0\xaf"]',
    "byte-order-mark": b"\xef\xbb\xbf[1]",
    "utf-16": "[1]".encode("utf-16"),
    "nan": b"[NaN]",
    "infinity": b"[-Infinity]",
    "leading-zero": b"[01]",
    "plus": b"[+1]",
    "comma-behind": b"[1,]",
    "comment": b"[1/**/]",
    "single-quotes": b"['a']",
    "raw-line-end-in-a-string": b'["a\nb"]',
    "two-values": b"[1] [2]",
    "nul-behind": b"[1]\x00",
    "duplicate-unknown-keys": b'{"other": 1, "other": 2}',
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED.keys())
def test_it_is_refused_and_nothing_else_happens(server, body):
    since, worker = server.mark(), server.worker_of(0)
    assert post(server, "echo", body)[0] == 400
    assert post(server, "echo", b'["fine"]') == (200, b'"fine"')
    assert server.worker_of(0) == worker
    assert server.unexpected(since=since) == [], "a client's mistake is no fault of the server"


TAKEN = {
    "duplicate-keys-the-last-counts": (b'{"value": 1, "value": 2}', 2),
    "duplicate-keys-inside": (b'[{"a": 1, "a": 2}]', {"a": 2}),
    "integer-of-4000-digits": (b"[" + b"9" * 4_000 + b"]", int("9" * 4_000)),
    "integer-beyond-64-bits": (b"[18446744073709551617]", 18446744073709551617),
    "minus-zero": (b"[-0.0]", -0.0),
    "smallest-double": (b"[5e-324]", 5e-324),
    "surrogate-pair": (b'["\\ud83d\\udc0d"]', "\U0001f40d"),
    "nul-in-a-string": (b'["\\u0000"]', "\0"),
    "composed": ('["\u00e9"]'.encode(), "\u00e9"),
    "decomposed": ('["e\u0301"]'.encode(), "e\u0301"),
    "empty-key": (b'[{"": 1}]', {"": 1}),
    "200-deep": (b"[" * 200 + b"]" * 200, None),
}


@pytest.mark.parametrize(("body", "value"), TAKEN.values(), ids=TAKEN.keys())
def test_it_is_taken_exactly(server, body, value):
    status, answer = post(server, "echo", body)
    assert status == 200
    if value is None:
        assert answer == body[1:-1]
    else:
        assert repr(json.loads(answer)) == repr(value)


def test_a_number_out_of_range_for_args_does_not_close_the_link(server, fifo, tmp_path):
    """Other calls of the same front run on meanwhile."""
    go = tmp_path / "go"
    os.mkfifo(go)
    since = server.mark()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.call, "Hostile", "running", "wait_for", fifo.path, str(go))
        fifo.wait()
        for body in (b"[1, 2, 1e999]", b'{"first": 1e999}', b"[1e999]"):
            assert post(server, "many", body)[0] == 400
        go.write_bytes(b"x")
        assert running.result().json() == "waited"
    assert server.result("Hostile", "running", "many", 1, 2.5, 3) == 3
    assert server.unexpected(since=since) == []
