"""Instances leave memory: when they are idle, and by least recent use when memory is short. Queues are bounded."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterable
from itertools import pairwise
from typing import Any, ClassVar

import pytest
from actord import StatefulActor
from actord.limits import MIB
from actord.shards.activation import Activation
from actord.shards.eviction import FAREWELLS, FRESH, Evictor
from actord.shards.kv import KV

from tests.support.harness import Core, steps
from tests.support.lots import LONG

MANY = 100_000 if LONG else 20_000

gate = asyncio.Event()


@pytest.fixture(autouse=True)
def fresh() -> None:
    global gate
    gate = asyncio.Event()


class Item(StatefulActor):
    async def touch(self) -> int:
        self.touched = getattr(self, "touched", 0) + 1
        return self.touched

    async def put(self, value: str = "x") -> None:
        await self.ctx.storage.put("v", value)

    async def get(self) -> Any:
        return await self.ctx.storage.get("v")

    async def wait(self) -> None:
        await gate.wait()


class Hasty(Item):
    idle_after = 2


async def sweep(core: Core, count: int) -> None:
    for _ in range(count):
        core.sweep()
        await steps()


async def test_an_instance_leaves_after_idle_after_and_every_use_postpones_it(store: Any) -> None:
    core = Core(Item, store=store, idle_after=5)
    await core.value("a", "put")
    await core.value("b", "touch")
    await sweep(core, 4)
    await core.value("a", "touch")
    await sweep(core, 1)
    assert set(core.activations()) == {"a"}
    await sweep(core, 3)
    assert await core.value("a", "touch") == 2  # still the same instance
    await sweep(core, 5)
    assert core.activations() == {}
    assert await core.value("a", "touch") == 1
    assert await core.value("a", "get") == "x"
    assert core.evictor.evictions == 2


async def test_a_type_has_its_own_idle_after() -> None:
    core = Core(Hasty, Item, idle_after=10)
    await core.value("a", "touch")
    await core.send("a", "touch", type_="Item")
    await sweep(core, 2)
    assert core.activations() == {}
    assert set(core.activations("Item")) == {"a"}


async def test_nothing_is_evicted_that_runs_waits_or_is_held() -> None:
    core = Core(Item, idle_after=1)
    core.resident = 1 << 40  # memory is short as well
    runs, queued = core.call("busy", "wait"), core.call("busy", "touch")
    core.hold_fsyncs()
    held = core.call("held", "put")
    await steps()
    saw = core.call("held", "get")
    await steps()
    await sweep(core, 10)
    assert set(core.activations()) == {"busy", "held"}
    gate.set()
    await core.fsync()
    assert [call.done for call in (runs, queued, held, saw)] == [True] * 4
    await sweep(core, 3)
    assert core.activations() == {}


async def test_over_the_memory_target_the_least_recently_used_go_first() -> None:
    core = Core(Item, idle_after=1000, memory_target=100 * MIB)
    for generation in range(4):
        for i in range(100):
            await core.value(f"{generation}-{i}", "touch")
        await sweep(core, 1)
    for i in range(100):
        await core.value(f"0-{i}", "touch")  # the first ones again
    await sweep(core, 1)
    assert len(core.activations()) == 400
    core.resident = 136 * MIB  # three eighths have to go: 1 - 100 * 0.85 / 136
    await sweep(core, 1)
    assert len(core.activations()) == 250
    assert not any(name.startswith("1-") for name in core.activations())
    core.resident = 80 * MIB
    await sweep(core, 5)
    assert len(core.activations()) == 250


async def touch(core: Core, names: Iterable[str]) -> None:
    for name in names:
        await core.value(name, "touch")


async def test_a_process_that_does_not_shrink_keeps_the_others_until_the_room_is_used_up() -> None:
    core = Core(Item, idle_after=1000, memory_target=100 * MIB)
    await touch(core, (f"a{i}" for i in range(2_000)))
    core.resident = 97 * MIB
    await sweep(core, 1)
    left = len(core.activations())
    assert left == pytest.approx(2_000 * 85 / 97, abs=2)
    await sweep(core, 10)  # the allocator has kept it all
    assert len(core.activations()) == left
    await touch(core, (f"b{i}" for i in range(FRESH - 10)))
    await sweep(core, 10)
    assert len(core.activations()) == left + FRESH - 10
    await touch(core, (f"c{i}" for i in range(20)))  # now there are as many as fit
    await sweep(core, 1)
    assert len(core.activations()) == pytest.approx((left + FRESH + 10) * 85 / 97, abs=2)


async def test_memory_that_grows_again_evicts_again() -> None:
    core = Core(Item, idle_after=1000, memory_target=100 * MIB)
    await touch(core, (f"a{i}" for i in range(2_000)))
    core.resident = 96 * MIB
    await sweep(core, 1)
    left = len(core.activations())
    assert left < 2_000
    core.resident = int(96.9 * MIB)
    await sweep(core, 1)
    assert len(core.activations()) == left
    core.resident = int(97.1 * MIB)  # of the same instances, whose caches have grown
    await sweep(core, 1)
    assert len(core.activations()) < left


async def test_a_worker_that_gets_nothing_for_its_evictions_tries_less_and_less_often() -> None:
    core = Core(Item, idle_after=1000, memory_target=100 * MIB)
    core.resident = 150 * MIB
    rounds = 0
    for second in range(300):
        await touch(core, (f"a{i}" for i in range(200)))
        before = core.evictor.for_memory
        await sweep(core, 1)
        rounds += core.evictor.for_memory > before
        if second == 1:
            assert rounds == 1
    assert 5 <= rounds <= 12  # at 0, 2, 6, 14, 30, 62, 126, 190, 254


async def test_over_the_target_every_sweep_evicts_as_long_as_it_helps() -> None:
    core = Core(Item, idle_after=1000, memory_target=100 * MIB)
    await touch(core, (f"a{i}" for i in range(2_000)))
    core.resident = 180 * MIB
    core.evictor.before_giving_back = lambda: setattr(core, "resident", core.resident - 20 * MIB)
    seen = [core.evictor.for_memory]
    for _ in range(6):
        await sweep(core, 1)
        seen.append(core.evictor.for_memory)
    assert [after > before for before, after in pairwise(seen)] == [True] * 4 + [False] * 2
    assert core.resident == 100 * MIB


async def test_a_target_below_the_needs_of_the_worker_itself_is_known_from_the_start() -> None:
    core = Core(Item)
    assert core.evictor.has_room
    assert not Evictor(core.runner, 100 * MIB, 0, lambda: 90 * MIB).has_room


async def test_memory_is_looked_at_before_a_second_is_over_when_many_activations_come() -> None:
    core = Core(Item, idle_after=1000)
    asked: list[int] = []
    core.evictor.on_growth = lambda: asked.append(len(core.activations()))
    await touch(core, (f"a{i}" for i in range(2 * FRESH + 10)))
    assert asked == [FRESH, 2 * FRESH]


class Leaves(Item):
    gone: ClassVar[list[str]] = []

    async def on_deactivate(self) -> None:
        self.gone.append(self.ctx.id)


async def test_memory_pressure_takes_the_least_recently_used_also_of_those_with_on_deactivate() -> None:
    Leaves.gone.clear()
    core = Core(Leaves, idle_after=1000, memory_target=100 * MIB)
    for generation in range(4):
        await touch(core, (f"{generation}-{i}" for i in range(250)))
        await sweep(core, 1)
    core.resident = int(113.4 * MIB)  # a quarter has to go
    await sweep(core, 2)  # their turns run after the first
    assert len(core.activations()) == pytest.approx(750, abs=2)
    assert not any(name.startswith("0-") and int(name[2:]) < 240 for name in core.activations())
    assert len(Leaves.gone) == 1_000 - len(core.activations())


async def test_an_idle_instance_with_on_deactivate_leaves_at_the_sweep_after_its_turn() -> None:
    Leaves.gone.clear()
    core = Core(Leaves, idle_after=50)
    await touch(core, ["a"])
    await sweep(core, 50)
    assert Leaves.gone == ["a"]
    assert set(core.activations()) == {"a"}
    await sweep(core, 1)
    assert core.activations() == {}


@pytest.mark.parametrize("why", ["idle", "memory"])
async def test_however_many_leave_at_once_a_call_waits_for_few_of_their_turns(why: str) -> None:
    Leaves.gone.clear()
    core = Core(Leaves, idle_after=2 if why == "idle" else 1000, memory_target=100 * MIB)
    await touch(core, map(str, range(10 * FAREWELLS)))
    await sweep(core, 1)
    if why == "memory":
        core.resident = 1000 * MIB
    core.sweep()
    called = core.call("new", "touch")
    before = 0
    for _ in range(1_000):
        assert core.runner.waiting <= FAREWELLS + 1
        await asyncio.sleep(0)
        before = before or (called.done and len(Leaves.gone))
    assert called.answer.value == 1
    assert 0 < before <= 2 * FAREWELLS
    assert len(Leaves.gone) >= 9 * FAREWELLS, "all that had to go"


async def test_where_many_calls_wait_as_many_instances_leave() -> None:
    Leaves.gone.clear()
    core = Core(Leaves, idle_after=2)
    calls, leaving = 3 * FAREWELLS, 5 * FAREWELLS
    await touch(core, map(str, range(leaving)))
    await sweep(core, 1)
    waiting = [core.call(f"new-{number}", "touch") for number in range(calls)]
    core.sweep()
    assert core.runner.waiting == 2 * calls
    await asyncio.gather(*(call.future for call in waiting))
    await steps()
    assert len(Leaves.gone) == leaving


async def test_an_evicted_instance_is_found_again_by_the_next_call_with_all_that_was_committed(store: Any) -> None:
    core = Core(Item, store=store, memory_target=32 * MIB)
    core.resident = 1 << 40
    for i in range(20):
        await core.value(f"k{i}", "put", f"v{i}")
    await sweep(core, 1)
    assert core.activations() == {}
    for i in range(20):
        assert await core.value(f"k{i}", "get") == f"v{i}"


async def test_a_cache_over_its_limit_is_dropped_while_the_instance_stays() -> None:
    core = Core(Item, idle_after=3, cache_per_instance=1000)
    await core.value("a", "put", "x" * 5000)
    await core.value("b", "put", "small")
    await sweep(core, 2)
    for name in ("a", "b"):
        await core.value(name, "touch")
    await sweep(core, 1)
    reads = core.store.reads
    assert await core.value("b", "get") == "small"
    assert core.store.reads == reads
    assert await core.value("a", "get") == "x" * 5000
    assert core.store.reads > reads
    assert await core.value("a", "touch") == 2


def live(kind: type) -> int:
    return sum(type(thing) is kind for thing in gc.get_objects())


async def test_many_evicted_activations_free_their_memory_without_the_collector() -> None:
    core = Core(Item, idle_after=1)
    gc.collect()
    gc.disable()
    before = live(Activation), live(KV), live(Item)
    try:
        for start in range(0, MANY, 5_000):
            calls = [core.call(f"k{i}", "put" if i % 10 == 0 else "touch") for i in range(start, start + 5_000)]
            for call in calls:
                await call
            del calls, call
            await steps(2)
        assert len(core.activations()) == MANY
        assert live(Activation) - before[0] == MANY
        await sweep(core, 3)
        assert core.activations() == {}
        assert live(Item) <= before[2]
        assert (
            max(live(Activation) - before[0], live(KV) - before[1]) <= 1
        )  # the pump has the last call still in its hand
    finally:
        gc.enable()


# -- bounded queues


async def test_a_full_mailbox_refuses_at_once_and_lets_other_keys_through() -> None:
    core = Core(Item, mailbox=10)
    running = core.call("a", "wait")
    await steps()
    queued = [core.call("a", "touch") for _ in range(10)]
    refused = core.call("a", "touch")
    assert refused.done
    answer = refused.answer
    assert (answer.status, answer.name, answer.applied) == (503, "ActorOverloaded", "no")
    assert answer.value["retryable"] is True
    assert answer.value["retry_after"] > 0
    assert b"Retry-After: 1\r\n" in answer.head
    assert core.caller.begun[refused.id] == 0
    assert (await core.call("b", "touch")).status == 200
    gate.set()
    await running
    assert [(await call).value for call in queued] == list(range(1, 11))
    assert (await core.call("a", "touch")).status == 200


async def test_the_worker_has_a_limit_of_waiting_calls_over_all_keys() -> None:
    core = Core(Item, worker_queue=20)
    calls = [core.call(f"k{i}", "touch") for i in range(30)]
    answers = [await call for call in calls]
    assert [answer.status for answer in answers] == [200] * 20 + [503] * 10
    assert {answer.name for answer in answers[20:]} == {"ActorOverloaded"}
    assert all(b"Retry-After" in answer.head for answer in answers[20:])
    assert set(core.activations()) == {f"k{i}" for i in range(20)}  # a refused flood takes no memory
    assert (await core.call("later", "touch")).status == 200
    assert core.runner.waiting == 0
