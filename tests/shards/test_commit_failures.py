"""A full disk takes one batch, for certain, and the shard goes on; any other failure ends the worker's service."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from actord import StatefulActor
from actord.errors import StoreBroken, StoreFull

from tests.support.harness import Core, Pending, steps
from tests.support.memory_store import MemoryStore, broken, full


class Cell(StatefulActor):
    gate: asyncio.Event
    built = 0

    def __init__(self) -> None:
        Cell.built += 1
        self.field = 0

    async def put(self, value: int) -> int:
        self.field = value
        await self.ctx.storage.put("v", value)
        return value

    async def get(self) -> Any:
        return await self.ctx.storage.get("v")

    async def get_slowly(self) -> Any:
        value = await self.ctx.storage.get("v")
        await self.gate.wait()
        return value

    async def look(self) -> int:
        return self.field

    async def wait_and_put(self, value: int) -> None:
        try:
            await self.gate.wait()
        finally:
            await self.ctx.storage.put("v", value)


@pytest.fixture(autouse=True)
def fresh() -> None:
    Cell.gate = asyncio.Event()
    Cell.built = 0


def outcome(call: Pending) -> tuple[int, str, str]:
    return call.answer.status, call.answer.name, call.answer.applied


FULL = (507, "ActorOutputGateError", "no")
UNKNOWN = (500, "ActorOutputGateError", "unknown")


async def test_a_full_disk_fails_the_whole_batch_and_nothing_of_it_was_applied() -> None:
    core = Core(Cell)
    await core.value("a", "put", 1)
    core.store.fail_write.append(full())
    calls = [core.call("a", "put", 2), core.call("b", "put", 3), core.call("a", "get")]
    await steps()
    assert [outcome(call) for call in calls] == [FULL] * 3
    assert b"Retry-After: 5\r\n" in calls[0].answer.head
    assert await core.value("a", "get") == 1
    assert await core.value("b", "get") is None
    assert core.broken == []


async def test_after_a_full_disk_instances_are_dropped_and_the_number_is_used_again() -> None:
    core = Core(Cell)
    await core.value("a", "put", 1)
    core.store.fail_write += [full(), full()]
    for value in (2, 3):
        assert (await core.call("a", "put", value)).status == 507
    assert await core.value("a", "look") == 0
    assert core.store.commit_seq == 1
    assert await core.value("a", "put", 4) == 4
    assert [batch.seq for batch in core.store.batches] == [1, 2]
    assert await core.value("a", "get") == 4


async def test_reads_of_other_keys_go_on_while_the_disk_is_full() -> None:
    core = Core(Cell)
    await core.value("a", "put", 1)
    core.hold_fsyncs()
    core.store.fail_write.append(full())
    fails, reads = core.call("b", "put", 2), core.call("a", "get")
    await steps()
    assert outcome(fails) == FULL
    assert reads.answer.value == 1


async def test_a_suspended_turn_that_saw_the_lost_state_is_failed_and_the_next_call_reads_the_old() -> None:
    core = Core(Cell)
    await core.value("a", "put", 1)
    core.hold_fsyncs()
    core.call("other", "put", 0)
    await steps()  # in flight
    writes, saw, after = core.call("a", "put", 2), core.call("a", "get_slowly"), core.call("a", "get")
    await steps()
    core.store.fail_write.append(full())
    await core.fsync()
    assert outcome(writes) == FULL
    assert outcome(saw) == FULL
    assert after.answer.value == 1
    assert core.runner.suspended == 0


async def test_a_suspended_turn_of_a_rolled_back_instance_can_not_write_any_more() -> None:
    core = Core(Cell)
    core.hold_fsyncs()
    core.call("other", "put", 0)
    await steps()
    core.call("a", "put", 2)
    core.call("a", "wait_and_put", 3)
    await steps()
    core.store.fail_write.append(full())
    await core.fsync()
    core.flusher.auto = True
    Cell.gate.set()
    assert await core.value("a", "get") is None
    assert all(len(batch.kv) == 1 for batch in core.store.batches)


async def test_the_batch_in_flight_is_answered_although_the_next_one_finds_the_disk_full() -> None:
    core = Core(Cell)
    core.hold_fsyncs()
    first = core.call("a", "put", 1)
    await steps()
    second = core.call("b", "put", 2)
    await steps()
    core.store.fail_write.append(full())
    await core.fsync()
    assert first.answer.value == 1
    assert outcome(second) == FULL
    assert core.caller.order == [first.id, second.id], "what was durable first leaves first"
    third = core.call("b", "put", 3)
    await steps()
    await core.fsync()
    assert third.answer.value == 3


@pytest.mark.parametrize("where", ["write", "sync"])
async def test_after_a_broken_store_everything_held_is_unknown_and_nothing_more_is_served(where: str) -> None:
    core = Core(Cell)
    await core.value("clean", "put", 1)
    suspended = core.call("clean", "get_slowly")
    await steps()
    core.hold_fsyncs()
    if where == "sync":
        first = core.call("a", "put", 1)
        await steps()
        held = [first, core.call("a", "get"), core.call("b", "put", 1)]
        await steps()
        core.store.fail_sync.append(broken())
        await core.fsync()
    else:
        core.store.fail_write.append(broken())
        held = [core.call("a", "put", 1), core.call("a", "get"), core.call("b", "put", 1)]
        await steps()
    assert [outcome(call) for call in held] == [UNKNOWN] * 3
    assert len(core.broken) == 1
    late = [core.call("a", "get"), core.call("clean", "look"), core.call("new", "put", 1)]
    Cell.gate.set()  # a turn that began before ends now
    await steps()
    assert not any(call.done for call in late)
    assert not suspended.done
    assert [core.caller.begun[call.id] for call in late] == [0, 0, 0]
    assert len(core.broken) == 1


async def test_a_broken_store_at_the_next_write_does_not_take_the_durable_replies_with_it() -> None:
    core = Core(Cell)
    core.hold_fsyncs()
    first = core.call("a", "put", 1)
    await steps()
    second = core.call("b", "put", 2)
    await steps()
    core.store.fail_write.append(broken())
    await core.fsync()
    assert first.answer.value == 1
    assert outcome(second) == UNKNOWN
    assert len(core.broken) == 1


async def test_a_failed_checkpoint_releases_what_is_durable_and_breaks_off() -> None:
    core = Core(Cell)
    core.hold_fsyncs()
    first = core.call("a", "put", 1)
    await steps()
    second = core.call("b", "put", 2)
    await steps()
    core.store.fail_maintain.append(broken())
    await core.fsync()
    assert first.answer.value == 1
    assert outcome(second) == UNKNOWN
    assert len(core.broken) == 1


async def test_an_unexpected_exception_of_the_store_is_as_bad_as_a_broken_one() -> None:
    core = Core(Cell)
    core.store.fail_write.append(RuntimeError("a bug"))
    call = core.call("a", "put", 1)
    await steps()
    assert outcome(call) == UNKNOWN
    assert len(core.broken) == 1


async def test_a_store_that_breaks_at_a_read_ends_the_service_too() -> None:
    class Unreadable(MemoryStore):
        def find_actor(self, slot: int, type_: str, name: str) -> int | None:
            raise broken()

    core = Core(Cell, store=Unreadable())
    call = core.call("a", "get")
    await steps()
    assert len(core.broken) == 1
    assert not call.done or call.answer.status == 500


def test_the_two_failures_of_the_store_are_not_each_other() -> None:
    assert not issubclass(StoreFull, StoreBroken)
    assert not issubclass(StoreBroken, StoreFull)
