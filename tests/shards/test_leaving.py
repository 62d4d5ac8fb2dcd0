"""How a worker leaves, frame by frame: over real unix sockets, with a front and another worker as its callers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from actord import StatefulActor
from actord.limits import BEGUN_BYTES
from actord.shards import leaving as leaving_module
from actord.shards.intake import Connection
from actord.shards.leaving import Departure
from actord.shards.wire import (
    CALL,
    DRAINING,
    HELLO,
    LEAVING,
    READY,
    REPLY,
    STOPPED,
    VERSION,
    BatchReader,
    pack_batch,
)

from tests.support.harness import Core

pytestmark = pytest.mark.real_time
gate = asyncio.Event()


@pytest.fixture(autouse=True)
def fresh() -> None:
    global gate
    gate = asyncio.Event()


class Account(StatefulActor):
    async def add(self) -> int:
        total: int = await self.ctx.storage.get("n", 0) + 1
        await self.ctx.storage.put("n", total)
        return total

    async def wait(self) -> None:
        await gate.wait()


class Caller(asyncio.Protocol):
    def __init__(self) -> None:
        self.frames: list[Any] = []
        self.came = asyncio.Event()
        self.closed = asyncio.Event()
        self._reader = BatchReader()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.frames += self._reader.feed(data)
        self.came.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()

    def say(self, *frames: Any) -> None:
        self.transport.write(pack_batch(list(frames)))

    async def heard(self, kind: int) -> list[Any]:
        async with asyncio.timeout(10):
            while not (found := [frame for frame in self.frames if frame[0] == kind]):
                self.came.clear()
                await self.came.wait()
        return found


@asynccontextmanager
async def callers(tmp_path: Path) -> AsyncIterator[tuple[Core, Caller, Caller]]:
    core = Core(Account)
    path, begun = str(tmp_path / "w"), tmp_path / "begun"
    begun.write_bytes(bytes(BEGUN_BYTES))
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(lambda: Connection(core.dispatcher), path)
    found = []
    for name in ("front-0", "worker-1"):
        _, caller = await loop.create_unix_connection(Caller, path)
        caller.say((HELLO, VERSION, name, str(begun)))
        await caller.heard(READY)
        found.append(caller)
    front, worker = found
    try:
        yield core, front, worker
    finally:
        for caller in found:
            caller.transport.abort()
        server.close()


def call(id_: int, method: str = "add", name: str = "a") -> tuple[Any, ...]:
    return (CALL, id_, "Account", name, method, 0, int((monotonic() + 60) * 1000), b"")


def leave(core: Core, limit: float = 30, **options: Any) -> asyncio.Task[bool]:
    departure = Departure(core.dispatcher, core.runner, {0: core.shard}, **options)
    return asyncio.get_running_loop().create_task(departure.run(limit))


async def test_fronts_are_asked_to_wait_and_workers_served_until_no_turn_runs(tmp_path: Path) -> None:
    async with callers(tmp_path) as (core, front, worker):
        front.say(call(1, "wait"))
        while not core.runner.suspended:  # noqa: ASYNC110
            await asyncio.sleep(0)
        left = leave(core)
        await front.heard(DRAINING)
        worker.say(call(1, name="b"))  # the turn that runs may be waiting for it
        assert (await worker.heard(REPLY))[0][1:4] == [1, 200, b"1"]
        assert not left.done()
        gate.set()
        await front.heard(LEAVING)
        await worker.heard(LEAVING)
        front.say((STOPPED,))
        worker.say((STOPPED,))
        assert await left
        kinds = [frame[0] for frame in front.frames]
        assert kinds == [READY, DRAINING, REPLY, LEAVING], "every reply stands before the last word"
        assert [frame[0] for frame in worker.frames] == [READY, REPLY, LEAVING]


async def test_what_comes_after_the_last_word_is_not_begun_and_the_link_stays_open_until_its_caller_has_stopped(
    tmp_path: Path,
) -> None:
    async with callers(tmp_path) as (core, front, worker):
        left = leave(core)
        await worker.heard(LEAVING)
        front.say((STOPPED,))
        worker.say(call(7), call(8, name="b"))
        worker.say((STOPPED,))
        assert await left
        await worker.closed.wait()
        await front.closed.wait()
        assert [frame for frame in worker.frames if frame[0] == REPLY] == []
        assert (tmp_path / "begun").read_bytes()[7:9] == bytes(2)
        assert core.store.actors == {}


async def test_a_worker_that_is_kept_busy_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaving_module, "CROWDED_SECONDS", 0.11)
    async with callers(tmp_path) as (core, front, worker):
        worker.say(call(1, "wait"))
        while not core.runner.suspended:  # noqa: ASYNC110
            await asyncio.sleep(0)
        told = asyncio.Event()
        left = leave(core, crowded=told.set)
        async with asyncio.timeout(10):
            await told.wait()
        gate.set()
        await worker.heard(LEAVING)
        front.say((STOPPED,))
        worker.say((STOPPED,))
        assert await left


async def test_at_the_limit_a_turn_is_left_where_it_is(tmp_path: Path) -> None:
    async with callers(tmp_path) as (core, front, worker):
        front.say(call(1, "wait"))
        while not core.runner.suspended:  # noqa: ASYNC110
            await asyncio.sleep(0)
        left = leave(core, limit=0.05)
        await front.heard(LEAVING)
        front.say((STOPPED,))
        worker.say((STOPPED,))
        assert not await left
        assert (tmp_path / "begun").read_bytes()[1] == 1, "its caller has to know"
        gate.set()


async def test_who_greets_a_worker_that_leaves_is_sent_away(tmp_path: Path) -> None:
    async with callers(tmp_path) as (core, front, worker):
        core.dispatcher.left = True
        _, late = await asyncio.get_running_loop().create_unix_connection(Caller, str(tmp_path / "w"))
        late.say((HELLO, VERSION, "worker-2", str(tmp_path / "begun")))
        async with asyncio.timeout(10):
            await late.closed.wait()
        assert late.frames == []
        assert not front.closed.is_set()
        assert not worker.closed.is_set()


async def test_a_worker_that_comes_while_turns_still_run_is_served_and_a_front_is_asked_to_wait(tmp_path: Path) -> None:
    """A chain of calls that began here may go through a worker that was replaced a moment ago, and come back."""
    async with callers(tmp_path) as (core, front, worker):
        front.say(call(1, "wait"))
        while not core.runner.suspended:  # noqa: ASYNC110
            await asyncio.sleep(0)
        left = leave(core)
        await front.heard(DRAINING)
        late = []
        for name in ("worker-2", "front-1"):
            _, caller = await asyncio.get_running_loop().create_unix_connection(Caller, str(tmp_path / "w"))
            caller.say((HELLO, VERSION, name, str(tmp_path / "begun")), call(2, name=name))
            late.append(caller)
        for caller in late:
            await caller.heard(REPLY)
        assert [frame[0] for frame in late[0].frames] == [READY, REPLY]
        assert [frame[0] for frame in late[1].frames] == [READY, DRAINING, REPLY]
        gate.set()
        for caller in (front, worker, *late):
            await caller.heard(LEAVING)
            caller.say((STOPPED,))
        assert await left
        for caller in late:
            caller.transport.abort()
