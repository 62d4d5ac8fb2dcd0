"""A method that never yields: found, named, its worker replaced; nobody else notices. A slow step is told once."""

from __future__ import annotations

import threading

import pytest
from actord.shards.slots import shard_of_slot, slot_of

from tests.support.server import Server


def name_on(shard: int, type_: str = "Stuck") -> str:
    return next(n for n in (f"key {i}" for i in range(100)) if shard_of_slot(slot_of(type_, n), 2) == shard)


# A loop of Python code: tests/faults/test_stuck.py.
@pytest.mark.parametrize("method", ["in_c", "after_an_await"])
def test_what_never_yields_is_named_with_its_stack_and_its_worker_replaced(method, serve):
    server: Server = serve("timers.py", settings={"server.workers": 2, "server.stuck_after": 1.0})
    held, other = name_on(0), name_on(1)
    bystander = server.worker_of(1)
    assert server.result("Stuck", held, "ping") == "pong"
    replies = []
    caller = threading.Thread(target=lambda: replies.append(server.call("Stuck", held, method)))
    caller.start()
    calls = 0
    while caller.is_alive():
        assert server.result("Stuck", other, "ping") == "pong"
        calls += 1
        caller.join(0.01)
    assert calls > 10
    [reply] = replies
    assert (reply.status, reply.json()["applied"]) == (503, "unknown")
    [record] = server.wait_log(rf"^Stuck\.{method} of '{held}' holds worker-0")
    assert record["process"] == "supervisor"
    assert "timers.py" in record["message"]
    assert f"in {method}" in record["message"]
    assert server.result("Stuck", held, "ping") == "pong"
    assert server.worker_of(1) == bystander


@pytest.mark.parametrize("method", ["blocks", "blocks_later"])
def test_a_step_that_blocks_the_loop_is_told_once_for_each_method_with_a_hint(method, serve):
    server: Server = serve("timers.py", settings={"server.workers": 1})
    since = server.mark()
    server.call("Stuck", "a", method, 0.001)
    for name in ("a", "a", "b"):
        assert server.call("Stuck", name, method, 0.3).status == 200
    assert server.stop() == 0
    told = [r for r in server.log[since:] if f"Stuck.{method} of " in r["message"]]
    assert [record["level"] for record in told] == ["warning"]
    assert "asyncio.to_thread" in told[0]["message"]
    assert "'a'" in told[0]["message"]
