"""Messages between two workers' cores over real sockets: once in effect, whatever is cut or forgotten in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from actord import ActorError, StatefulActor, codec
from actord.shards.intake import Connection
from actord.shards.link import Link
from actord.shards.slots import shard_of_slot, slot_of
from actord.shards.wire import CALLX, MSGPACK, PAIR
from actord.storage.api import Message

from tests.support.harness import Core, steps
from tests.support.memory_store import MemoryStore

pytestmark = pytest.mark.real_time

failing: dict[Any, int] = {}
ran: list[Any] = []


@pytest.fixture(autouse=True)
def fresh() -> None:
    failing.clear()
    ran.clear()


class Box(StatefulActor):
    send_retries = 1

    async def take(self, value: Any) -> None:
        ran.append(value)
        if failing.get(value, 0) > 0:
            failing[value] -= 1
            raise ActorError(f"not {value}")
        await self.ctx.storage.put("all", [*await self.ctx.storage.get("all", []), value])

    async def held(self) -> Any:
        return await self.ctx.storage.get("all", [])

    async def give(self, to: str, *values: Any) -> None:
        for value in values:
            self.env.send(Box, to).take(value)


class Smaller(StatefulActor):
    """The same type in a later version of the program, without the method."""


Smaller.__name__ = "Box"


def name_on(shard: int) -> str:
    return next(f"n{i}" for i in range(100) if shard_of_slot(slot_of("Box", f"n{i}"), 2) == shard)


HERE, THERE = name_on(0), name_on(1)


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not done():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


@asynccontextmanager
async def two_workers(tmp_path: Path, **options: Any) -> AsyncIterator[tuple[Core, Core, Link]]:
    there = Core(options.pop("type", Box), store=options.pop("store", None), shard=1, shards=2)
    path = str(tmp_path / "worker1")
    server = await asyncio.get_running_loop().create_unix_server(lambda: Connection(there.dispatcher), path)
    link = Link(path, caller="worker-0", begun_path=str(tmp_path / "begun"))
    here = Core(Box, shard=0, shards=2, links=lambda slot: link, **options)
    link.connect()
    here.outbox.start()
    there.outbox.start()
    try:
        yield here, there, link
    finally:
        here.outbox.stop()
        link.close()
        server.close()


async def test_messages_to_another_worker_arrive_in_order_and_once(tmp_path: Path) -> None:
    async with two_workers(tmp_path) as (here, there, _):
        await here.value(HERE, "give", THERE, *range(40))
        await until(lambda: here.outbox.delivered == 40 and not here.store.outbox)
        assert await there.value(THERE, "held") == list(range(40))
        assert here.broken == there.broken == []


async def test_what_is_remembered_of_messages_is_bounded_by_what_is_under_way(tmp_path: Path) -> None:
    async with two_workers(tmp_path) as (here, there, _):
        most = 0
        for number in range(60):
            await here.value(HERE, "give", THERE, number)
            await until(lambda number=number: here.outbox.delivered == number + 1)  # type: ignore[misc]
            await until(lambda: not here.store.outbox and here.shard.committer.idle)
            most = max(most, len(there.store.inbox))
        assert most <= 2
        assert len(await there.value(THERE, "held")) == 60


async def test_a_message_that_comes_again_has_no_effect_and_is_answered_when_the_first_is_durable(
    tmp_path: Path,
) -> None:
    async with two_workers(tmp_path) as (here, there, _):
        await there.value(THERE, "held")
        there.hold_fsyncs()
        here.outbox._link_of = lambda slot: pytest.fail("not here")  # type: ignore[assignment, return-value]
        first, second = (deliver(there, 7, "x") for _ in range(2))
        await steps(50)
        assert (ran, first.done, second.done) == (["x"], False, False)
        await there.fsync()
        await steps(50)
        assert (first.answer.status, second.answer.status) == (200, 200)
        third = deliver(there, 7, "x")
        assert (await third).status == 200
        there.flusher.auto = True
        there.evictor.sweep()
        assert await there.value(THERE, "held") == ["x"]
        assert ran == ["x"]


def deliver(core: Core, id_: int, value: Any, floor: int = 1) -> Any:
    pending = core.caller.open()
    body = codec.encode([[value], {}])
    frame = [CALLX, pending.id, "Box", THERE, "take", {"msg": [0, id_, floor]}, MSGPACK | PAIR, 1 << 62, body]
    core.dispatcher.callx(core.caller, frame, 0.0)  # type: ignore[arg-type]
    return pending


async def test_a_failed_run_is_not_remembered_and_an_echo_from_below_the_floor_is_not_run(tmp_path: Path) -> None:
    core = Core(Box, shard=1, shards=2)
    failing["x"] = 1
    assert (await deliver(core, 5, "x")).name == "ActorError"
    assert (await deliver(core, 5, "x")).status == 200
    assert (await deliver(core, 9, "y", floor=8)).status == 200
    assert core.store.inbox == {(0, 9)}
    assert (await deliver(core, 5, "x")).status == 200
    assert ran == ["x", "x", "y"]


@pytest.mark.parametrize("mark", [None, 5, [1, 2], [0, "1", 0], [0, -1, 0], [0, 1, 1 << 63], [0, True, 0]])
async def test_a_mark_that_makes_no_sense_is_no_frame(mark: Any) -> None:
    from actord.shards.wire import WireError

    core = Core(Box, shard=1, shards=2)
    frame = [CALLX, 1, "Box", THERE, "take", {"msg": mark}, MSGPACK | PAIR, 1 << 62, codec.encode([[1], {}])]
    with pytest.raises(WireError):
        core.dispatcher.callx(core.caller, frame, 0.0)  # type: ignore[arg-type]
    assert core.activations() == {}


async def test_a_cut_link_delivers_again_without_a_second_effect(tmp_path: Path) -> None:
    async with two_workers(tmp_path) as (here, there, link):
        await until(lambda: link.ready)
        there.hold_fsyncs()
        await here.value(HERE, "give", THERE, "x")
        await until(lambda: ran == ["x"])
        for connection in list(there.dispatcher.connections):
            connection._transport.abort()  # type: ignore[union-attr]
        await until(lambda: bool(here.outbox.lanes[0].pairs) and not here.outbox._under_way.get(1))
        there.flusher.auto = True
        there.flusher.fsync()
        await until(lambda: here.outbox.delivered == 1 and not here.store.outbox)
        assert ran == ["x"]
        assert await there.value(THERE, "held") == ["x"]


async def test_the_sender_dies_before_it_knows_and_its_successor_delivers_again(tmp_path: Path) -> None:
    async with two_workers(tmp_path) as (here, there, _):
        here.store.fail_sync.clear()
        await here.value(HERE, "give", THERE, *range(5))
        kept = dict(here.store.outbox)
        assert kept
        await until(lambda: here.outbox.delivered == 5 and not here.store.outbox)
        here.outbox.stop()
        # The removal of all five was not durable.
        here.store.outbox.update(kept)
        second = Core(Box, shard=0, shards=2, store=here.store, links=here.outbox._link_of)
        second.outbox.start()
        await until(lambda: not here.store.outbox)
        assert await there.value(THERE, "held") == list(range(5))
        assert ran == list(range(5))
        second.outbox.stop()


async def test_a_message_is_not_parked_by_a_program_that_lost_the_method_after_it_took_effect(tmp_path: Path) -> None:
    store = MemoryStore()
    store.inbox.add((0, (1 << 40) + 2))
    async with two_workers(tmp_path, type=Smaller, store=store) as (here, _, _):
        await here.value(HERE, "give", THERE, "x", "y")
        assert sorted(here.store.outbox) == [(1 << 40) + 2, (1 << 40) + 3]
        await until(lambda: here.outbox.parked == 1 and here.shard.committer.idle)
        (parked,) = here.store.outbox.values()
        assert parked.id == (1 << 40) + 3
        assert "ActorUnknownMethodError" in parked.error


async def test_a_worker_that_is_away_is_waited_for_without_an_attempt(tmp_path: Path) -> None:
    path = str(tmp_path / "worker1")
    link = Link(path, caller="worker-0", begun_path=str(tmp_path / "begun"))
    here = Core(Box, shard=0, shards=2, links=lambda slot: link)
    here.outbox.start()
    link.connect()
    await here.value(HERE, "give", THERE, "x")
    await here.value(HERE, "give", HERE, "mine")
    await until(lambda: ran == ["mine"])
    there = Core(Box, shard=1, shards=2)
    server = await asyncio.get_running_loop().create_unix_server(lambda: Connection(there.dispatcher), path)
    try:
        await until(lambda: not here.store.outbox)
        assert ran == ["mine", "x"]
        assert here.outbox.retried == 0
    finally:
        here.outbox.stop()
        link.close()
        server.close()


def test_a_floor_is_the_lowest_id_that_may_come_again() -> None:
    from actord.shards.outbox_lane import Floor

    floor = Floor()
    assert floor.value(7) == 7
    for id_ in (5, 9, 6):
        floor.add(id_)
    assert floor.value(100) == 5
    floor.drop(6)
    assert floor.value(100) == 5
    floor.drop(5)
    floor.drop(5)
    assert floor.value(100) == 9
    floor.drop(9)
    assert floor.value(100) == 100
    assert Message(1, 2, "A", "b", "m", b"").error is None
