"""The time limit of a turn: cancellation, fencing of what is late, and what does not count."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from actord import Response, StatefulActor, TurnEnded, timeout

from tests.support.harness import Core, steps


class Slow(StatefulActor):
    built: int
    errors: list[BaseException]
    gate: asyncio.Event
    log: list[str]

    def __init__(self) -> None:
        Slow.built += 1

    async def sleep(self, seconds: float) -> str:
        self.log.append("begins")
        await asyncio.sleep(seconds)
        return "slept"

    @timeout(2)
    async def limited(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "slept"

    async def write_and_sleep(self, seconds: float) -> None:
        await self.ctx.storage.put("v", "lost")
        await asyncio.sleep(seconds)

    async def swallow(self) -> None:
        """Takes no notice of being cancelled, and goes on writing."""
        while not self.gate.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await self.gate.wait()
            for attempt in (self.ctx.storage.put("v", "late"), self.ctx.storage.get("v"), self.ctx.storage.delete("v")):
                try:
                    await attempt
                except TurnEnded as error:
                    self.errors.append(error)
            try:
                self.ctx.abort("late")
            except TurnEnded as error:
                self.errors.append(error)

    async def clean_up_slowly(self) -> None:
        try:
            await asyncio.sleep(100)
        finally:
            self.log.append("cleaning")
            await self.gate.wait()
            self.log.append("cleaned")

    def block(self, seconds: float, fail: bool = False) -> str:
        asyncio.get_running_loop().advance(seconds)  # type: ignore[attr-defined]
        if fail:
            raise ValueError("late as well")
        return "blocked"

    async def write_and_block(self, seconds: float) -> None:
        await self.ctx.storage.put("v", "lost")
        self.block(seconds)

    async def sleep_then_block(self, seconds: float) -> None:
        await asyncio.sleep(1)
        self.block(seconds)

    async def leave_a_task(self) -> str:
        async def later() -> None:
            await self.gate.wait()
            for attempt in (self.ctx.storage.put("v", "late"), self.ctx.storage.list()):
                try:
                    await attempt
                except TurnEnded as error:
                    self.errors.append(error)

        self.task = asyncio.create_task(later())
        return "left"

    async def open_the_gate_and_wait(self) -> str:
        self.gate.set()
        await asyncio.sleep(1)
        return "waited"

    async def get(self) -> Any:
        return await self.ctx.storage.get("v")

    async def fetch(self, request: Any) -> Response:
        await asyncio.sleep(float(request.query.get("s", "0")))
        return Response.text("fetched")


@pytest.fixture(autouse=True)
def fresh() -> None:
    Slow.built, Slow.errors, Slow.log, Slow.gate = 0, [], [], asyncio.Event()


async def test_a_turn_over_its_limit_is_cancelled_and_its_writes_are_discarded() -> None:
    core = Core(Slow)
    loop = asyncio.get_running_loop()
    start = loop.time()
    answer = await core.call("a", "write_and_sleep", 100)
    assert 30 <= loop.time() - start < 30.1
    assert (answer.status, answer.name, answer.applied) == (504, "ActorMethodTimeoutError", "no")
    await steps()
    assert core.runner.suspended == 0
    assert await core.value("a", "get") is None
    assert Slow.built == 2  # the instance went with it
    assert core.store.commit_seq == 0


async def test_a_method_and_a_type_and_the_server_may_set_the_limit() -> None:
    class Quick(Slow):
        call_timeout = 5

    core = Core(Quick, Slow, call_timeout=20)
    loop = asyncio.get_running_loop()
    for type_, method, limit in (("Quick", "limited", 2), ("Quick", "sleep", 5), ("Slow", "sleep", 20)):
        start = loop.time()
        answer = await core.send("a", method, b"[100]", type_=type_)
        assert answer.status == 504
        assert loop.time() - start == pytest.approx(limit, abs=0.01)
        assert (await core.send("a", method, b"[%.1f]" % (limit - 0.5), type_=type_)).value == "slept"


async def test_fetch_over_its_limit_is_a_fetch_timeout() -> None:
    core = Core(Slow)
    answer = await core.fetch("a", url="/x?s=40")
    assert (answer.status, answer.name) == (504, "ActorFetchTimeoutError")
    assert (await core.fetch("a", url="/x?s=20")).body == b"fetched"


async def test_a_method_that_swallows_cancellation_gets_turn_ended_at_every_late_effect() -> None:
    core = Core(Slow)
    answer = await core.call("a", "swallow")
    assert answer.status == 504
    next_ = core.call("a", "get")  # a later turn of the same key
    await steps()
    assert next_.answer.value is None
    assert [type(error) for error in Slow.errors] == [TurnEnded] * 4
    Slow.gate.set()
    await steps()
    assert core.runner.suspended == 0
    assert await core.value("a", "get") is None
    assert core.store.commit_seq == 0


async def test_the_next_queued_turn_starts_only_after_the_old_one_is_fenced_off() -> None:
    core = Core(Slow)
    old, next_ = core.call("a", "clean_up_slowly"), core.call("a", "sleep", 1)
    await asyncio.sleep(29)
    assert Slow.log == []
    assert not core.caller.begun[next_.id]
    assert (await old).status == 504
    assert (await next_).value == "slept"
    assert Slow.log == ["begins", "cleaning"] or Slow.log == ["cleaning", "begins"]
    Slow.gate.set()
    await steps()
    assert Slow.log[-1] == "cleaned"
    assert Slow.built == 2


async def test_a_task_that_a_turn_left_behind_can_not_write_even_while_the_next_turn_runs() -> None:
    core = Core(Slow)
    assert await core.value("a", "leave_a_task") == "left"
    assert await core.value("a", "open_the_gate_and_wait") == "waited"
    assert [type(error) for error in Slow.errors] == [TurnEnded] * 2
    assert await core.value("a", "get") is None


async def test_a_deadline_shorter_than_the_limit_ends_the_turn() -> None:
    core = Core(Slow)
    loop = asyncio.get_running_loop()
    start = loop.time()
    answer = await core.send("a", "sleep", b"[20]", within=3)
    assert (answer.status, answer.name, answer.applied) == (504, "ActorMethodTimeoutError", "no")
    assert loop.time() - start == pytest.approx(3, abs=0.01)


async def test_queueing_time_does_not_count() -> None:
    core = Core(Slow)
    first, second = core.call("a", "sleep", 25), core.call("a", "sleep", 25)
    assert (await first).value == "slept"
    assert (await second).value == "slept"


async def test_a_call_that_is_late_in_the_queue_is_refused_and_not_marked_begun() -> None:
    core = Core(Slow)
    first = core.call("a", "sleep", 20)
    late = core.send("a", "sleep", b"[1]", within=5)
    after = core.call("a", "get")
    assert (await first).status == 200
    answer = await late
    assert (answer.status, answer.name, answer.applied) == (503, "ActorUnavailable", "no")
    assert answer.value["retryable"] is True
    assert core.caller.begun_at_reply[late.id] == 0
    assert core.caller.begun_at_reply[first.id] == 1
    assert (await after).status == 200
    assert Slow.log == ["begins"]


async def test_a_cancelled_call_in_the_queue_is_not_run_but_answered() -> None:
    core = Core(Slow)
    first, gone = core.call("a", "sleep", 2), core.call("a", "sleep", 2)
    await steps()
    core.caller.calls[gone.id].cancelled = True  # what a CANCEL frame does
    await first
    assert (await gone).applied == "no"
    assert core.caller.begun_at_reply[gone.id] == 0
    assert Slow.log == ["begins"]


async def test_a_cancelled_call_that_runs_is_run_to_its_end() -> None:
    core = Core(Slow)
    call = core.call("a", "sleep", 2)
    await steps()
    core.caller.calls[call.id].cancelled = True
    assert (await call).value == "slept"


@pytest.mark.parametrize("method", ["block", "write_and_block", "sleep_then_block"])
async def test_a_method_over_its_limit_that_never_yields_is_failed_at_its_end(method: str) -> None:
    core = Core(Slow)
    answer = await core.call("a", method, 31)
    assert (answer.status, answer.name, answer.applied) == (504, "ActorMethodTimeoutError", "no")
    assert await core.value("a", "get") is None
    assert Slow.built == 2
    assert (await core.call("a", method, 1)).status == 200


async def test_a_method_that_blocks_over_its_limit_and_raises_is_failed_once() -> None:
    core = Core(Slow)
    answer = await core.call("a", "block", 31, True)
    assert answer.status in (500, 504)
    assert await core.value("a", "get") is None
