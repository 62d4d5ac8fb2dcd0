"""One turn at a time for each key, first in first out; tasks, contexts and cancellation of turns."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest
from actord import StatefulActor
from actord.shards.turns import TurnRunner

from tests.support.harness import Core, steps

flavour: ContextVar[str] = ContextVar("flavour", default="none")


class Worker(StatefulActor):
    log: list[str]
    gates: dict[str, asyncio.Event]
    left_behind: list[Any]

    async def step(self, label: str) -> str:
        """Write down begin and end, with an await between them for as long as the gate of ``label`` is shut."""
        self.log.append(f"{self.ctx.id} {label} begins")
        gate = self.gates.get(label)
        if gate is not None:
            await gate.wait()
        self.log.append(f"{self.ctx.id} {label} ends")
        return label

    async def at_once(self) -> str:
        return "done"

    def plain(self) -> str:
        return "plain"

    async def times_out_inside(self) -> str:
        try:
            async with asyncio.timeout(5):
                await asyncio.Event().wait()
        except TimeoutError:
            return "timed out"
        return "never"

    async def names_its_task(self) -> bool:
        before = asyncio.current_task()
        await asyncio.sleep(1)
        return before is not None and before is asyncio.current_task()

    async def groups(self) -> list[int]:
        async def double(n: int) -> int:
            await asyncio.sleep(n)
            return 2 * n

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(double(n)) for n in (3, 1, 2)]
        return [task.result() for task in tasks]

    async def group_that_fails(self) -> str:
        async def fail() -> None:
            raise ValueError("inside")

        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(fail())
                both.create_task(asyncio.sleep(100))
        except ExceptionGroup as group:
            return type(group.exceptions[0]).__name__
        return "never"

    async def sets_flavour(self, value: str, wait: bool) -> str:
        flavour.set(value)
        if wait:
            await asyncio.sleep(1)
        return flavour.get()

    async def reads_flavour(self) -> str:
        return flavour.get()

    async def cancels_itself(self) -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return "returned all the same"

    async def cancels_itself_and_waits(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)

    async def leaves_a_cancel_behind(self, uncancel: bool) -> str:
        task = asyncio.current_task()
        assert task is not None
        if uncancel:
            task.cancel()
            task.uncancel()
        else:
            asyncio.get_running_loop().call_soon(task.cancel)
        return "returned"

    async def yields_nonsense(self) -> None:
        class Nonsense:
            def __await__(self) -> Any:
                yield "not a future"

        await Nonsense()


@pytest.fixture(autouse=True)
def fresh() -> None:
    Worker.log = []
    Worker.gates = {}


async def test_calls_of_one_key_run_first_in_first_out() -> None:
    core = Core(Worker)
    Worker.gates["0"] = asyncio.Event()
    calls = [core.call("a", "step", str(i)) for i in range(20)]
    await steps()
    assert Worker.log == ["a 0 begins"]
    Worker.gates["0"].set()
    for i, call in enumerate(calls):
        assert (await call).value == str(i)
    assert Worker.log == [f"a {i} {what}" for i in range(20) for what in ("begins", "ends")]
    assert core.caller.order == [call.id for call in calls]


async def test_turns_of_one_key_never_interleave_while_other_keys_run() -> None:
    core = Core(Worker)
    Worker.gates["1"] = asyncio.Event()
    first, second = core.call("a", "step", "1"), core.call("a", "step", "2")
    other = core.call("b", "step", "3")
    assert (await other).value == "3"
    assert Worker.log == ["a 1 begins", "b 3 begins", "b 3 ends"]
    assert not first.done
    assert not second.done
    Worker.gates["1"].set()
    await second
    assert Worker.log[3:] == ["a 1 ends", "a 2 begins", "a 2 ends"]


async def test_no_task_is_made_for_a_call_that_never_suspends() -> None:
    core = Core(Worker)
    await steps()
    made: list[Any] = []

    def count(loop: Any, coro: Any, **kwargs: Any) -> Any:
        made.append(coro)
        return asyncio.Task(coro, loop=loop, **kwargs)

    loop = asyncio.get_running_loop()
    loop.set_task_factory(count)
    calls = [core.call(f"k{i}", method) for i in range(100) for method in ("at_once", "plain")]
    for call in calls:
        await call
    assert made == []
    await core.call("a", "sets_flavour", "x", True)
    assert len(made) == 1  # the pump that takes over from the one that the turn keeps
    loop.set_task_factory(None)


async def test_timeout_current_task_and_task_group_work_in_the_first_step() -> None:
    core = Core(Worker)
    assert await core.value("a", "times_out_inside") == "timed out"
    assert await core.value("a", "names_its_task") is True
    assert await core.value("a", "groups") == [6, 2, 4]
    assert await core.value("a", "group_that_fails") == "ValueError"
    assert await core.value("a", "at_once") == "done"


@pytest.mark.parametrize("wait", [False, True])
async def test_context_variables_do_not_leak_between_turns(wait: bool) -> None:
    core = Core(Worker)
    assert await core.value("a", "sets_flavour", "sweet", wait) == "sweet"
    assert await core.value("a", "reads_flavour") == "none"
    assert await core.value("b", "reads_flavour") == "none"
    both = core.call("a", "sets_flavour", "sour", True), core.call("b", "reads_flavour")
    assert [(await call).value for call in both] == ["sour", "none"]
    assert flavour.get() == "none"


async def test_a_turn_that_cancels_its_own_task_does_not_hurt_the_next_turn() -> None:
    core = Core(Worker)
    calls = [core.call("a", "cancels_itself"), core.call("a", "names_its_task"), core.call("b", "at_once")]
    assert [(await call).value for call in calls] == ["returned all the same", True, "done"]


async def test_a_turn_that_cancels_its_own_task_and_waits_fails_alone() -> None:
    core = Core(Worker)
    failed, after = core.call("a", "cancels_itself_and_waits"), core.call("a", "names_its_task")
    assert (await failed).value["error_type"] == "CancelledError"
    assert (await after).value is True


@pytest.mark.parametrize("uncancel", [False, True])
async def test_a_cancel_that_a_turn_leaves_behind_does_not_stop_the_worker(uncancel: bool) -> None:
    core = Core(Worker)
    assert await core.value("a", "leaves_a_cancel_behind", uncancel) == "returned"
    await steps()
    assert await core.value("a", "at_once") == "done"
    assert await core.value("b", "names_its_task") is True


async def test_an_awaitable_that_yields_nonsense_fails_its_turn_alone() -> None:
    core = Core(Worker)
    failed = await core.call("a", "yields_nonsense")
    assert (failed.status, failed.value["error_type"]) == (500, "RuntimeError")
    assert await core.value("a", "names_its_task") is True


async def test_the_turn_being_stepped_can_be_seen_from_outside() -> None:
    core = Core(Worker)
    seen: list[Any] = []

    def look(runner: TurnRunner) -> None:
        seen.append(runner.now_running)

    class Log(list):  # type: ignore[type-arg]
        def append(self, item: Any) -> None:
            look(core.runner)

    Worker.log = Log()
    await core.call("a", "step", "1")
    assert {(call.act.name, call.method.name) for call in seen} == {("a", "step")}
    await steps()
    assert core.runner.now_running is None


async def test_a_bug_of_the_runtime_is_reported_and_not_survived_in_silence(caplog: Any) -> None:
    class Broken:
        def __setitem__(self, id_: int, value: int) -> None:
            raise RuntimeError("a bug of ours")

    core = Core(Worker)
    seen: list[BaseException] = []
    core.runner.on_bug = seen.append
    core.caller.begun = Broken()  # type: ignore[assignment]  # where a turn is marked as begun
    core.call("x", "at_once")
    await steps()
    assert [str(bug) for bug in seen] == ["a bug of ours"]
    assert "the worker's own code failed" in caplog.text
