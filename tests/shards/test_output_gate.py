"""Durable before reply, atomic turns, and what becomes of an instance whose fields may be ahead of storage."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from actord import ActorError, CodecError, StatefulActor

from tests.support.harness import Core, steps
from tests.support.memory_store import broken


class Cell(StatefulActor):
    gate: asyncio.Event

    def __init__(self) -> None:
        self.field = 0

    async def put(self, value: int) -> int:
        self.field = value
        await self.ctx.storage.put("v", value)
        return value

    async def put_slowly(self, value: int) -> int:
        await self.ctx.storage.put("v", value)
        await self.gate.wait()
        return value

    async def get(self) -> Any:
        return await self.ctx.storage.get("v")

    async def look(self) -> int:
        return self.field

    async def touch(self, value: int) -> None:
        self.field = value

    async def clear(self) -> None:
        await self.ctx.storage.delete_all()

    async def remove_what_is_not_there(self) -> bool:
        return await self.ctx.storage.delete("nothing")

    async def put_and_raise(self, value: int) -> None:
        self.field = value
        await self.ctx.storage.put("v", value)
        raise ValueError("after the write")

    async def raise_only(self) -> None:
        raise ValueError("no write")

    async def refuse(self) -> None:
        await self.ctx.storage.get("v")
        raise ActorError("no", status=409)

    async def caught_then_raise(self) -> None:
        await self.ctx.storage.put("before", 1)
        try:
            await self.ctx.storage.put("bad", object())
        except CodecError:
            await self.ctx.storage.put("after", 2)
        raise ActorError("give up")

    async def caught_then_return(self) -> None:
        await self.ctx.storage.put("before", 1)
        try:
            await self.ctx.storage.put("bad", object())
        except CodecError:
            await self.ctx.storage.put("after", 2)

    async def everything(self) -> dict[str, Any]:
        return await self.ctx.storage.list()


@pytest.fixture(autouse=True)
def gate() -> None:
    Cell.gate = asyncio.Event()


async def test_reply_waits_for_the_fsync_of_its_own_batch(store: Any) -> None:
    core = Core(Cell, store=store)
    core.hold_fsyncs()
    first = core.call("a", "put", 1)
    await steps()
    second = core.call("b", "put", 2)  # ends while the first batch is being flushed: it waits for the second
    await steps()
    assert not first.done
    assert core.flusher.count == 1
    await core.fsync()
    assert first.done
    assert not second.done
    assert core.flusher.count == 2
    await core.fsync()
    assert second.done
    assert core.store.commit_seq == 2


async def test_a_batch_closes_at_once_when_nothing_is_in_flight_and_holds_all_that_ended_meanwhile() -> None:
    core = Core(Cell)
    core.hold_fsyncs()
    calls = [core.call(f"k{i}", "put", i) for i in range(10)]
    await steps()
    later = [core.call(f"k{i}", "put", -i) for i in range(10)]
    await steps()
    assert core.flusher.count == 1
    assert [len(batch.kv) for batch in core.store.batches] == [10]
    await core.fsync()
    assert [call.done for call in calls + later] == [True] * 10 + [False] * 10
    await core.fsync()
    assert [len(batch.kv) for batch in core.store.batches] == [10, 10]
    assert [batch.seq for batch in core.store.batches] == [1, 2]


async def test_the_next_batch_is_with_the_flusher_before_the_replies_of_the_last_one_leave() -> None:
    core = Core(Cell)
    core.hold_fsyncs()
    first = core.call("a", "put", 1)
    await steps()
    core.call("b", "put", 2)
    await steps()
    counts: list[int] = []
    flush = core.caller.flush
    core.caller.flush = lambda: (counts.append(core.flusher.count), flush())[1]  # type: ignore[method-assign]
    await core.fsync()
    assert first.done
    assert counts == [2]


async def test_the_next_turn_may_start_before_the_commit_ends_and_its_reply_is_held() -> None:
    core = Core(Cell)
    core.hold_fsyncs()
    writes = core.call("a", "put", 1)
    reads = core.call("a", "get")
    again = core.call("a", "put", 2)
    await steps()
    act = core.activation("a")
    assert not act.busy  # all three turns have ended
    assert [call.done for call in (writes, reads, again)] == [False] * 3
    await core.fsync()
    assert writes.done
    assert reads.answer.value == 1
    while core.flusher.waiting:
        await core.fsync()
    assert again.answer.value == 2


async def test_a_read_that_saw_an_unflushed_write_is_held_and_one_on_a_clean_key_is_not(store: Any) -> None:
    core = Core(Cell, store=store)
    core.hold_fsyncs()
    writes = core.call("dirty", "put", 1)
    await steps()  # in flight now
    saw = core.call("dirty", "get")
    clean = core.call("clean", "get")
    await steps()
    assert clean.done
    assert not saw.done
    assert core.flusher.count == 1  # a read alone starts no commit
    await core.fsync()
    assert writes.done
    assert saw.answer.value == 1
    assert core.flusher.count == 1
    late = core.call("dirty", "get")
    await steps()
    assert late.done


async def test_a_read_is_held_for_the_open_batch_while_another_is_in_flight() -> None:
    core = Core(Cell)
    core.hold_fsyncs()
    core.call("other", "put", 1)
    await steps()
    core.call("a", "put", 2)
    reads = core.call("a", "get")
    await steps()
    await core.fsync()
    assert not reads.done
    await core.fsync()
    assert reads.answer.value == 2


@pytest.mark.parametrize("method", ["raise_only", "refuse", "put_and_raise"])
async def test_error_replies_are_held_likewise(method: str) -> None:
    core = Core(Cell)
    core.hold_fsyncs()
    core.call("a", "put", 1)
    await steps()
    args = (5,) if method == "put_and_raise" else ()
    fails = core.call("a", method, *args)
    elsewhere = core.call("clean", method, *args)
    await steps()
    assert not fails.done
    assert elsewhere.done
    await core.fsync()
    assert fails.answer.status in (409, 500)


async def test_a_turn_that_throws_commits_nothing_also_what_it_wrote_before_a_caught_error(store: Any) -> None:
    core = Core(Cell, store=store)
    failed = await core.call("a", "caught_then_raise")
    assert (failed.status, failed.applied) == (400, "no")
    assert await core.value("a", "everything") == {}
    assert core.store.commit_seq == 0
    await core.value("a", "caught_then_return")
    assert await core.value("a", "everything") == {"after": 2, "before": 1}


async def test_a_turn_that_only_read_or_deleted_nothing_starts_no_commit(store: Any) -> None:
    core = Core(Cell, store=store)
    await core.value("a", "get")
    await core.value("a", "clear")
    assert await core.value("a", "remove_what_is_not_there") is False
    assert core.flusher.count == 0
    assert core.store.commit_seq == 0


async def test_an_instance_that_wrote_and_then_threw_is_dropped() -> None:
    core = Core(Cell)
    await core.value("a", "put", 1)
    assert await core.value("a", "look") == 1
    assert (await core.call("a", "put_and_raise", 9)).status == 500
    assert await core.value("a", "look") == 0  # a fresh one
    assert await core.value("a", "get") == 1


async def test_calls_queued_behind_a_dropped_instance_see_what_earlier_turns_left_unwritten() -> None:
    core = Core(Cell)
    core.hold_fsyncs()
    calls = [
        core.call("a", "put", 1),
        core.call("a", "put_and_raise", 9),
        core.call("a", "look"),
        core.call("a", "get"),
    ]
    await steps()
    while core.flusher.waiting:
        await core.fsync()
    assert [call.answer.status for call in calls] == [200, 500, 200, 200]
    assert [call.answer.value for call in calls[2:]] == [0, 1]


@pytest.mark.parametrize("method", ["raise_only", "refuse"])
async def test_fields_survive_a_turn_that_threw_but_wrote_nothing(method: str) -> None:
    core = Core(Cell)
    await core.value("a", "touch", 7)
    await core.call("a", method)
    assert await core.value("a", "look") == 7


async def test_turns_enter_batches_in_the_order_in_which_they_ended() -> None:
    core = Core(Cell)
    core.hold_fsyncs()
    slow = core.call("slow", "put_slowly", 1)
    fast = core.call("fast", "put", 2)
    await steps()
    assert list(core.store.rows) == [core.store.actors[key] for key in core.store.actors if key[2] == "fast"]
    Cell.gate.set()
    await steps()
    assert len(core.store.batches) == 1
    await core.fsync()
    assert fast.done
    assert not slow.done
    await core.fsync()
    assert slow.done


async def test_a_suspended_turn_reads_its_own_writes_and_nobody_else_sees_them() -> None:
    core = Core(Cell)
    await core.value("a", "put", 1)
    slow = core.call("a", "put_slowly", 2)
    await steps()
    assert core.activation("a").kv._committed("v") != core.activation("a").turn.writes["v"]  # type: ignore[union-attr,index]
    Cell.gate.set()
    await slow
    assert await core.value("a", "get") == 2


async def test_who_attends_a_batch_is_told_when_that_one_is_durable_and_once() -> None:
    """Also if nobody attended the batch that was in flight when it began to."""
    core = Core(Cell)
    core.hold_fsyncs()
    committer = core.shard.committer
    told: list[bool] = []
    core.call("a", "put", 1)
    await steps()  # in flight, attended by nobody
    committer.attend(told.append)
    second = core.call("b", "put", 2)
    await steps()
    await core.fsync()
    assert not told
    assert not second.done
    await core.fsync()
    assert told == [True]
    assert second.done
    core.call("a", "put", 3)
    await steps()
    await core.fsync()
    assert told == [True]


async def test_a_sync_in_the_loop_is_behind_the_write_and_before_the_reply() -> None:
    core = Core(Cell)
    core.flusher.here = True
    synced = core.store.synced = []
    sync = core.store.sync
    core.store.sync = lambda: (synced.append((core.store.commit_seq, len(core.caller.order))), sync())
    calls = [core.call(name, "put", 1) for name in "ab"]
    await steps()
    assert all(call.done for call in calls)
    assert synced == [(1, 0)], "one sync, of the batch that both are in, when no reply had left"
    assert core.shard.committer.durable_seq == 1


async def test_replies_of_a_batch_leave_before_the_next_one_is_synced_in_the_loop() -> None:
    """When the flusher changes its mind while a batch is in flight."""
    core = Core(Cell)
    core.hold_fsyncs()
    first = core.call("a", "put", 1)
    await steps()  # in flight
    second = core.call("a", "put", 2)
    await steps()  # waits for the batch behind it
    core.flusher.here = True
    left: list[bool] = []
    sync = core.store.sync
    core.store.sync = lambda: (left.append(first.done), sync())
    core.flusher.fsync()
    assert left == [False, True]
    assert second.done
    assert core.caller.order == [first.id, second.id]


async def test_a_sync_that_fails_in_the_loop_answers_unknown_and_nothing_is_served_any_more() -> None:
    core = Core(Cell)
    core.flusher.here = True
    core.store.fail_sync.append(broken())
    call = core.call("a", "put", 1)
    await steps()
    assert call.answer.applied == "unknown"
    assert core.broken
    later = core.call("a", "put", 2)
    await steps()
    assert not later.done


async def test_who_asks_for_the_next_commit_whenever_told_of_one_is_served_for_ever_by_syncs_in_the_loop() -> None:
    """Each of them is told in the loop of whoever closed the batch, not one inside the other."""
    core = Core(Cell)
    core.flusher.here = True
    committer = core.shard.committer
    told: list[bool] = []

    def tell(durable: bool) -> None:
        told.append(durable)
        if len(told) < 5_000:
            committer.attend(tell)
            committer.kick()

    committer.attend(tell)
    committer.kick()
    assert told == [True] * 5_000
    assert committer.idle
