"""Construction, ``on_activate``, ``block_concurrency_while``, ``on_deactivate`` and ``ctx.abort``."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from actord import ActorError, StatefulActor, TurnEnded
from actord.errors import InstanceAborted
from actord.shards.registry import ActorType, ProgramError

from tests.support.harness import Core, steps
from tests.support.memory_store import full

log: list[str] = []
failures: list[BaseException] = []
gate = asyncio.Event()


@pytest.fixture(autouse=True)
def fresh() -> None:
    global gate
    log.clear()
    failures.clear()
    gate = asyncio.Event()


class Loaded(StatefulActor):
    """Initialises itself in three ways, and may be told to fail or to wait in each."""

    def __init__(self, ctx: Any, env: Any) -> None:
        log.append("built")
        assert self.ctx is ctx
        assert self.env is env is ctx.env
        ctx.block_concurrency_while(self.blocked)

    async def blocked(self) -> None:
        log.append("blocked")
        await self.ctx.storage.put("blocked", 1)
        await asyncio.sleep(1)

    async def on_activate(self) -> None:
        log.append("on_activate")
        await self.ctx.storage.put("active", await self.ctx.storage.get("active", 0) + 1)
        if failures:
            raise failures.pop()
        await asyncio.sleep(1)

    async def everything(self) -> dict[str, Any]:
        log.append("call")
        return await self.ctx.storage.list()

    async def blocks_too_late(self) -> None:
        self.ctx.block_concurrency_while(self.blocked)


class Stuck(StatefulActor):
    async def on_activate(self) -> None:
        await self.ctx.storage.put("v", "lost")
        await gate.wait()

    async def get(self) -> Any:
        return await self.ctx.storage.get("v")


async def test_initialisation_runs_before_the_first_turn_and_its_writes_commit(store: Any) -> None:
    core = Core(Loaded, store=store)
    calls = [core.call("a", "everything") for _ in range(3)]
    assert [(await call).value for call in calls] == [{"active": 1, "blocked": 1}] * 3
    assert log == ["built", "blocked", "on_activate", "call", "call", "call"]
    await steps()
    actor = store.find_actor(core.activation("a").slot, "Loaded", "a")
    assert [key for key, _ in store.scan(actor)[0]] == ["active", "blocked"]


async def test_initialisation_of_one_key_lets_other_keys_run() -> None:
    core = Core(Stuck, Loaded)
    waits = core.call("a", "get")
    assert (await core.send("b", "everything", type_="Loaded")).status == 200
    assert not waits.done
    gate.set()
    assert (await waits).value == "lost"


async def test_writes_of_an_initialisation_whose_caller_only_reads_are_flushed_before_the_reply() -> None:
    core = Core(Loaded)
    core.hold_fsyncs()
    call = core.call("a", "everything")
    await asyncio.sleep(5)
    assert not call.done
    await core.fsync()
    assert call.done


@pytest.mark.parametrize("failure", [ValueError("broken"), ActorError("not now", status=409), SystemExit(3)])
async def test_an_initialisation_that_fails_fails_the_waiting_calls_and_the_next_call_tries_again(
    failure: BaseException,
) -> None:
    core = Core(Loaded)
    failures.append(failure)
    calls = [core.call("a", "everything") for _ in range(3)]
    answers = [await call for call in calls]
    status = 409 if isinstance(failure, ActorError) else 500
    assert [(answer.status, answer.applied) for answer in answers] == [(status, "no")] * 3
    assert [core.caller.begun_at_reply[call.id] for call in calls] == [0] * 3
    assert core.runner.waiting == 0
    assert (await core.call("a", "everything")).value == {"active": 1, "blocked": 1}
    assert log.count("built") == 2


async def test_an_initialisation_over_its_limit_is_a_timeout_and_the_next_call_tries_again() -> None:
    core = Core(Stuck, init_timeout=30)
    start = asyncio.get_running_loop().time()
    calls = [core.call("a", "get") for _ in range(3)]
    answers = [await call for call in calls]
    assert asyncio.get_running_loop().time() - start == pytest.approx(30, abs=0.01)
    expected = (504, "BlockConcurrencyTimeoutError", "no")
    assert [(answer.status, answer.name, answer.applied) for answer in answers] == [expected] * 3
    await steps()
    assert core.store.commit_seq == 0
    again = core.call("a", "get")
    gate.set()
    assert (await again).value == "lost"


async def test_block_concurrency_while_is_for_the_constructor() -> None:
    core = Core(Loaded)
    answer = await core.call("a", "blocks_too_late")
    assert answer.value["error_type"] == "RuntimeError"


class Bare(StatefulActor):
    def __init__(self) -> None:
        self.name = self.ctx.id  # there before the constructor runs

    def who(self) -> list[Any]:
        return [self.name, self.ctx.type, self.env is self.ctx.env]

    def fence(self) -> Any:
        return self.ctx.fence

    async def put(self) -> None:
        await self.ctx.storage.put("v", 1)


class Picky(StatefulActor):
    def __init__(self) -> None:
        if failures:
            raise failures.pop()
        log.append("built")

    def hello(self) -> str:
        return "hello"


class Impatient(StatefulActor):
    def __init__(self) -> None:
        self.early = self.ctx.storage.put("v", 1)

    async def read(self) -> Any:
        try:
            await self.early
        except BaseException as error:
            return type(error).__name__
        return await self.ctx.storage.get("v")


async def test_a_constructor_may_take_nothing_and_has_its_context_already() -> None:
    core = Core(Bare)
    assert await core.value("a", "who") == ["a", "Bare", True]


def test_a_constructor_that_wants_something_else_is_refused_at_load() -> None:
    class Odd(StatefulActor):
        def __init__(self, ctx: Any, env: Any, more: Any) -> None:
            pass

    with pytest.raises(ProgramError, match=r"Odd.__init__ must take \(self, ctx, env\)"):
        ActorType(Odd, "ODD")


async def test_the_fence_grows_with_every_commit() -> None:
    core = Core(Bare)
    first = await core.value("a", "fence")
    await core.value("a", "put")
    second = await core.value("a", "fence")
    assert first < second
    assert second == [core.activation("a").slot, 1, 1]


@pytest.mark.parametrize("failure", [ValueError("broken"), KeyboardInterrupt(), StopIteration(1)])
async def test_a_constructor_that_raises_fails_the_waiting_calls_and_the_next_tries_again(
    failure: BaseException,
) -> None:
    core = Core(Picky)
    failures.append(failure)
    first = core.call("a", "hello")
    answer = await first
    assert (answer.status, answer.value["error_type"], answer.applied) == (500, type(failure).__name__, "no")
    assert await core.value("a", "hello") == "hello"
    assert log == ["built"]


async def test_a_full_disk_during_initialisation_starts_it_again() -> None:
    core = Core(Loaded)
    core.store.fail_write.append(full())
    first = await core.call("a", "everything")
    assert first.status == 507
    assert (await core.call("a", "everything")).value == {"active": 1, "blocked": 1}
    assert core.store.commit_seq == 1


# -- abort


class Aborts(StatefulActor):
    def __init__(self) -> None:
        self.field = 0

    async def abort(self, catch: bool, wait: bool) -> str:
        self.field = 1
        await self.ctx.storage.put("v", 1)
        if wait:
            await asyncio.sleep(1)
        try:
            self.ctx.abort("enough")
        except InstanceAborted:
            if not catch:
                raise
        return "went on"

    async def abort_before_any_write(self) -> None:
        self.field = 1
        self.ctx.abort()

    async def look(self) -> list[Any]:
        return [self.field, await self.ctx.storage.get("v")]

    async def aborts_somebody_else(self) -> str:
        try:
            other.ctx.abort()
        except TurnEnded:
            return "refused"
        return "aborted"

    async def remember(self) -> None:
        global other
        other = self


other: Any = None


@pytest.mark.parametrize("catch", [False, True])
@pytest.mark.parametrize("wait", [False, True])
async def test_abort_drops_the_instance_and_fails_the_turn_whatever_the_method_makes_of_it(
    catch: bool, wait: bool
) -> None:
    core = Core(Aborts)
    fails, after = core.call("a", "abort", catch, wait), core.call("a", "look")
    answer = await fails
    assert (answer.status, answer.name, answer.applied, answer.detail) == (503, "InstanceAborted", "no", "enough")
    assert (await after).value == [0, None]


async def test_abort_drops_an_instance_that_wrote_nothing() -> None:
    core = Core(Aborts)
    assert (await core.call("a", "abort_before_any_write")).name == "InstanceAborted"
    assert await core.value("a", "look") == [0, None]


async def test_only_the_turn_that_runs_can_abort_its_instance() -> None:
    core = Core(Aborts)
    await core.value("b", "remember")
    assert await core.value("a", "aborts_somebody_else") == "refused"


# -- on_deactivate


class Leaves(StatefulActor):
    async def on_deactivate(self) -> None:
        log.append(f"{self.ctx.id} leaves")
        await self.ctx.storage.put("left", True)
        if failures:
            raise failures.pop()
        await gate.wait()

    async def left(self) -> Any:
        log.append("call")
        return await self.ctx.storage.get("left")


async def sweep(core: Core, count: int) -> None:
    for _ in range(count):
        core.sweep()
        await steps()


async def test_on_deactivate_runs_before_eviction_and_its_writes_commit() -> None:
    gate.set()
    core = Core(Leaves, idle_after=3)
    assert await core.value("a", "left") is None
    await sweep(core, 2)
    assert log == ["call"]
    await sweep(core, 10)
    assert log == ["call", "a leaves"]
    assert core.activations() == {}
    assert await core.value("a", "left") is True


async def test_a_call_that_comes_during_on_deactivate_waits_and_gets_a_fresh_instance() -> None:
    core = Core(Leaves, idle_after=1)
    await core.value("a", "left")
    old = core.activation("a").instance
    await sweep(core, 1)
    call = core.call("a", "left")
    await steps()
    assert not call.done
    gate.set()
    assert (await call).value is True
    assert core.activation("a").instance is not old


async def test_an_on_deactivate_that_fails_or_hangs_does_not_keep_the_instance() -> None:
    core = Core(Leaves, idle_after=1, init_timeout=5)
    failures.append(ValueError("no"))
    await core.value("a", "left")
    await core.value("b", "left")
    await sweep(core, 1)
    await asyncio.sleep(6)
    await sweep(core, 3)
    assert core.activations() == {}
    assert core.runner.waiting == 0


async def test_a_type_may_set_its_own_limit_for_initialisation() -> None:
    class Slow(StatefulActor):
        init_timeout = 2.0

        async def on_activate(self) -> None:
            await asyncio.sleep(3)

        async def hello(self) -> str:
            return "hello"

    core = Core(Slow, init_timeout=10)
    late = await core.call("x", "hello")
    assert (late.status, late.name, late.applied) == (504, "BlockConcurrencyTimeoutError", "no")
    assert "2 s" in late.detail


async def test_a_type_may_set_its_own_limit_for_its_mailbox() -> None:
    gate = asyncio.Event()

    class Narrow(StatefulActor):
        mailbox = 1

        async def wait(self) -> None:
            await gate.wait()

    core = Core(Narrow)
    running, waiting, refused = (core.call("x", "wait") for _ in range(3))
    assert (await refused).name == "ActorOverloaded"
    gate.set()
    assert ((await running).status, (await waiting).status) == (200, 200)
