"""``GET /-/openapi.json`` of a real server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openapi_spec_validator

from tests.support.command import actord

ACCOUNT = Path(__file__).parents[2] / "examples" / "account.py"


def test_every_worker_answers_the_document_that_the_command_prints(serve: Any) -> None:
    server = serve(ACCOUNT, settings={"server.workers": 2, "storage.shards": 2})
    printed = json.loads(actord("openapi", str(ACCOUNT)).stdout)
    openapi_spec_validator.validate(printed)
    for _ in range(4):  # by turns of either worker
        reply = server.request("GET", "/-/openapi.json")
        assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
        assert reply.json() == printed
    head = server.request("HEAD", "/-/openapi.json")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(reply.body)))


def test_a_program_that_can_not_be_described_is_served_all_the_same(serve: Any, tmp_path: Path) -> None:
    program = tmp_path / "app.py"
    program.write_text(
        "from actord import StatefulActor\n"
        "class Trap(StatefulActor):\n"
        "    async def one(self) -> int: return 1\n"
        "class Version:\n"
        "    def __str__(self): raise RuntimeError('never')\n"
        "__version__ = Version()\n"
    )
    server = serve(program, settings={"server.workers": 1})
    for _ in range(3):
        reply = server.request("GET", "/-/openapi.json")
        assert (reply.status, reply.json()["name"]) == (500, "ActordError")
    assert len(server.wait_log("the program can't be described")) == 1
    assert server.result("Trap", "a", "one") == 1
