"""A real server with more calls than it can carry: the excess is refused as the contract says, and nothing is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict

from actord.loadtest.openloop import Outcome, Plan, Stream, from_json

from tests.support.server import Server

PROGRAM = """
import time
from actord import StatefulActor

class Slow(StatefulActor):
    async def add(self) -> int:
        time.sleep(0.005)  # 200 a second, on whatever machine
        n = await self.ctx.storage.get("n", 0) + 1
        await self.ctx.storage.put("n", n)
        return n

    async def count(self) -> int:
        return await self.ctx.storage.get("n", 0)
"""
NAMES = 300


def offered(port: int, *streams: Stream, seconds: float = 3) -> Outcome:
    """An open loop in a process of its own."""
    plan = json.dumps(asdict(Plan(port, seconds, list(streams), connections=1500, warm_up=0)))
    command = [sys.executable, "-m", "actord.loadtest.openloop"]
    done = subprocess.run(command, input=plan, capture_output=True, text=True, timeout=120, check=True)
    return from_json(done.stdout)


def test_four_times_what_a_server_can_carry_is_refused_politely_and_what_was_answered_is_there(serve, tmp_path):
    program = tmp_path / "slow.py"
    program.write_text(PROGRAM)
    server: Server = serve(program, settings={"server.workers": 1, "storage.shards": 1})
    seen = offered(server.port, Stream("all", 800, "/actors/Slow/n%d/add", NAMES, "[]")).streams["all"]
    answered, refused = seen.applied, seen.refusals
    assert (seen.failed, seen.unpolite) == (0, 0), "each refusal says Retry-After and that nothing was applied"
    assert answered + refused == seen.due
    assert refused > 0.2 * seen.due
    assert answered > 0
    assert sum(server.result("Slow", f"n{name}", "count") for name in range(1, NAMES + 1)) == answered
    # Calm again: everything is let in.
    seen = offered(server.port, Stream("all", 20, "/actors/Slow/n%d/add", NAMES, "[]"), seconds=1).streams["all"]
    assert seen.applied == seen.due
    assert len(server.wait_log("more calls come than this worker can do")) == 1
    assert server.unexpected() == []
