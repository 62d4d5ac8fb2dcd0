"""Two workers' cores linked over a real unix socket; the serving end of a link; G1."""

from __future__ import annotations

import asyncio
import mmap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from actord import ActorError, Request, Response, StatefulActor
from actord.errors import ActorArgumentError, ActorUnavailable
from actord.limits import BEGUN_BYTES, LINK_CALLS
from actord.shards.intake import Connection
from actord.shards.link import Link
from actord.shards.slots import shard_of_slot, slot_of
from actord.shards.wire import (
    CALL,
    CANCEL,
    DOOR,
    DRAINING,
    FETCH,
    HELLO,
    READY,
    REPLY,
    VERSION,
    BatchReader,
    pack_batch,
)

from tests.support.harness import Core, steps

gate = asyncio.Event()


@pytest.fixture(autouse=True)
def fresh() -> None:
    global gate
    gate = asyncio.Event()


class Account(StatefulActor):
    async def add(self, n: int) -> int:
        total: int = await self.ctx.storage.get("n", 0) + n
        await self.ctx.storage.put("n", total)
        return total

    async def wait(self) -> None:
        await gate.wait()

    async def refuse(self) -> None:
        raise ActorError("poor", code="poor", status=409, data={1, 2})

    async def echo(self, value: Any) -> Any:
        return value

    async def fetch(self, request: Request) -> Response:
        return Response.text(f"{self.ctx.id} {request.method} {request.url} {await request.text()}", 203)


def name_on(shard: int, shards: int = 2) -> str:
    return next(f"n{i}" for i in range(100) if shard_of_slot(slot_of("Account", f"n{i}"), shards) == shard)


HERE, THERE = name_on(0), name_on(1)
pytestmark = pytest.mark.real_time


@asynccontextmanager
async def two_workers(tmp_path: Path, handler: Any) -> AsyncIterator[tuple[Core, Core, Link]]:
    there = Core(Account, shard=1, shards=2)
    path = str(tmp_path / "worker1")
    server = await asyncio.get_running_loop().create_unix_server(lambda: Connection(there.dispatcher), path)
    link = Link(path, caller="worker-0", begun_path=str(tmp_path / "begun"))
    here = Core(Account, shard=0, shards=2, links=lambda slot: link, front_door=handler)
    link.connect()
    try:
        yield here, there, link
    finally:
        link.close()
        server.close()


async def test_a_worker_that_does_not_own_a_name_refuses_it() -> None:
    core = Core(Account, shard=0, shards=2)
    assert await core.value(HERE, "add", 1) == 1
    answer = await core.call(THERE, "add", 1)
    assert (answer.status, answer.name, answer.applied) == (503, "ActorUnavailable", "no")
    assert core.caller.begun[2] == 0
    assert (await core.fetch(THERE)).status == 503
    assert set(core.activations()) == {HERE}


@pytest.mark.parametrize("name", ["", "a\0", "x" * 513, "é" * 257])
async def test_an_illegal_name_is_a_bad_request(name: str) -> None:
    answer = await Core(Account).call(name, "add", 1)
    assert (answer.status, answer.name) == (400, "BadRequest")


@pytest.mark.parametrize(
    "name", ["x" * 512, "é" * 256, "\U0001f600" * 128, "..", "a/b:c+d e", "é", "e\u0301", "\n", "%00"]
)
async def test_any_other_name_is_its_own(name: str) -> None:
    core = Core(Account)
    assert await core.value(name, "add", 1) == 1
    assert await core.value(name, "add", 1) == 2


async def test_the_front_door_calls_actors_of_both_workers_alike(tmp_path: Path) -> None:
    async def handler(request: Any, env: Any) -> Response:
        for name in (HERE, THERE):
            account = env.ACCOUNT.id_from_name(name)
            assert [await account.add(1), await account.add(n=2)] == [1, 3]
            value = {"t": (1, {2}), "b": b"x"}
            back = await account.echo(value)
            assert back == value
            assert type(back["t"]) is tuple
            with pytest.raises(ActorError) as caught:
                await account.refuse()
            assert (caught.value.code, caught.value.http_status, caught.value.data) == ("poor", 409, {1, 2})
            with pytest.raises(ActorArgumentError, match="'n'"):
                await account.add("x")
            with pytest.raises(ActorArgumentError, match="missing"):
                await account.add()
            response = await account.fetch(Request("PUT", "/p?q", body="body"))
            assert (response.status, response.body) == (203, f"{name} PUT /p?q body".encode())
        return Response.text("ok")

    async with two_workers(tmp_path, handler) as (here, there, _link):
        answer = await here.door()
        assert answer.body == b"ok", answer
        assert set(here.activations()) == {HERE}
        assert set(there.activations()) == {THERE}


async def test_a_call_to_another_worker_that_is_given_up_is_not_made_and_its_id_comes_back(tmp_path: Path) -> None:
    async def handler(request: Any, env: Any) -> Response:
        await env.ACCOUNT.id_from_name(THERE).add(1)
        return Response.text("ok")

    async with two_workers(tmp_path, handler) as (here, there, link):
        assert (await here.door()).status == 200
        busy = there.call(THERE, "wait")
        door = here.door()
        while len(there.activation(THERE).mailbox or ()) == 0:  # noqa: ASYNC110
            await asyncio.sleep(0)
        here.caller.doors[door.id].cancel()
        assert (await door).status == 503
        while not there.activation(THERE).mailbox[0].cancelled:  # type: ignore[index]  # noqa: ASYNC110
            await asyncio.sleep(0)
        gate.set()
        await busy
        while len(link._free) < LINK_CALLS:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert await there.value(THERE, "add", 0) == 1


async def test_when_the_other_worker_goes_away_a_begun_call_is_unknown(tmp_path: Path) -> None:
    async def handler(request: Any, env: Any) -> Response:
        with pytest.raises(ActorUnavailable) as caught:
            await env.ACCOUNT.id_from_name(THERE).wait()
        assert caught.value.applied == "unknown"
        raise caught.value

    async with two_workers(tmp_path, handler) as (here, there, _link):
        door = here.door()
        while not there.runner.suspended:  # noqa: ASYNC110
            await asyncio.sleep(0)
        for connection in list(there.dispatcher.connections):
            connection._transport.abort()  # type: ignore[union-attr]
        answer = await door
        assert (answer.status, answer.name, answer.applied) == (503, "ActorUnavailable", "unknown")
        gate.set()
        await steps()


# -- the serving end


class Client(asyncio.Protocol):
    def __init__(self) -> None:
        self.reader = BatchReader()
        self.frames: list[Any] = []
        self.came = asyncio.Event()
        self.closed = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.frames += self.reader.feed(data)
        self.came.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()
        self.came.set()

    def say(self, *frames: Any) -> None:
        self.transport.write(pack_batch(list(frames)))

    async def until(self, count: int) -> list[Any]:
        async with asyncio.timeout(10):
            while len(self.frames) < count:
                self.came.clear()
                await self.came.wait()
        return self.frames


async def door_handler(request: Any, env: Any) -> Response:
    if request.path == "/wait":
        await gate.wait()
    return Response.text("door")


@asynccontextmanager
async def served(tmp_path: Path, greet: bool = True) -> AsyncIterator[tuple[Core, Client, mmap.mmap]]:
    core = Core(Account, front_door=door_handler)
    path = str(tmp_path / "w")
    loop = asyncio.get_running_loop()
    server = await loop.create_unix_server(lambda: Connection(core.dispatcher), path)
    _, client = await loop.create_unix_connection(Client, path)
    with open(tmp_path / "begun", "w+b") as file:  # noqa: ASYNC230
        file.truncate(BEGUN_BYTES)
        begun = mmap.mmap(file.fileno(), BEGUN_BYTES)
    try:
        if greet:
            client.say((HELLO, VERSION, "front", str(tmp_path / "begun")))
            assert (await client.until(1))[0] == [READY, VERSION, {"front_door": True, "types": ["Account"]}]
            client.frames.clear()
        yield core, client, begun
    finally:
        client.transport.abort()
        server.close()


def deadline(seconds: float = 60) -> int:
    return int((monotonic() + seconds) * 1000)


def call(id_: int, method: str = "add", body: bytes = b"[1]", name: str = "a") -> tuple[Any, ...]:
    return (CALL, id_, "Account", name, method, 0, deadline(), body)


def request(path: str = "/") -> list[Any]:
    return ["GET", path, [], "127.0.0.1"]


async def test_every_frame_is_answered_by_exactly_one_reply(tmp_path: Path) -> None:
    async with served(tmp_path) as (_core, client, begun):
        client.say(
            call(1),
            call(2, "missing"),
            call(3, body=b"nonsense"),
            call(4, name=""),
            (FETCH, 5, "Account", "a", request("/x"), None, 0, deadline(), b""),
            (DOOR, 6, request(), 0, deadline(), b""),
            (DOOR, 7, request("/wait"), 0, deadline(), b""),
            (CANCEL, 7),  # before its task took a step
            call(8, "wait", b""),
            call(9, name="a"),
            (CANCEL, 9),
            (CANCEL, 60_000),  # nobody knows of it
        )
        await client.until(7)
        gate.set()
        frames = await client.until(9)
        await steps(100)
        assert sorted(frame[1] for frame in frames) == list(range(1, 10))
        status = {frame[1]: frame[2] for frame in frames}
        assert status == {1: 200, 2: 404, 3: 400, 4: 400, 5: 203, 6: 200, 7: 503, 8: 200, 9: 503}
        assert (begun[1], begun[5], begun[6], begun[8]) == (1, 1, 1, 1)
        assert (begun[2], begun[3], begun[4], begun[9]) == (0, 0, 0, 0)
        assert all(frame[0] == REPLY and type(frame[3]) is bytes for frame in frames)


async def test_when_the_caller_goes_away_its_calls_that_have_not_begun_are_not_made(tmp_path: Path) -> None:
    async with served(tmp_path) as (core, client, begun):
        client.say(call(1, "wait", b""), call(2), (DOOR, 3, request("/wait"), 0, deadline(), b""))
        while not (core.runner.suspended and core.dispatcher.front_door.open):  # type: ignore[union-attr]  # noqa: ASYNC110
            await asyncio.sleep(0)
        client.transport.abort()
        while core.dispatcher.connections:  # noqa: ASYNC110
            await asyncio.sleep(0)
        gate.set()
        assert await core.value("a", "add", 0) == 0
        assert core.dispatcher.front_door.open == 0  # type: ignore[union-attr]
        assert (begun[1], begun[2]) == (1, 0)


async def test_a_drain_is_announced(tmp_path: Path) -> None:
    async with served(tmp_path) as (core, client, _begun):
        for connection in core.dispatcher.connections:
            connection.say_draining()
        assert await client.until(1) == [[DRAINING]]
        client.say(call(1))
        assert (await client.until(2))[1][1:3] == [1, 200]  # what was sent before it heard is still served


NONSENSE: list[Any] = [
    (99, 1),
    (CALL,),
    (CALL, 1, "Account", "a", "add", 0, 1),
    (CALL, LINK_CALLS, "Account", "a", "wait", 0, 1 << 60, b""),
    (CALL, -1, "Account", "a", "wait", 0, 1 << 60, b""),
    (CALL, "1", "Account", "a", "wait", 0, 1 << 60, b""),
    (CALL, 1, ["Account"], "a", "wait", 0, 1 << 60, b""),
    (CALL, 1, "Account", 5, "wait", 0, 1 << 60, b""),
    (CALL, 1, "Account", "a", None, 0, "soon", b""),
    (CALL, 1, "Account", "a", "wait", "flags", 1 << 60, b""),
    (CALL, 1, "Account", "a", "wait", 0, None, b""),
    (CALL, 1, "Account", "a", "wait", 0, 1 << 60, 5),
    (FETCH, LINK_CALLS, "Account", "a", request(), None, 0, 1 << 60, b""),
    (FETCH, 1, "Account", "a", "request", None, 0, 1 << 60, b""),
    (FETCH, 1, "Account", "a", request(), None, 0, "soon", b""),
    (DOOR, LINK_CALLS, request(), None, 0, 1 << 60, b""),
    (DOOR, 1, 5, 0, 1 << 60, b""),
    (DOOR, 1, request(), 0, None, b""),
    (HELLO, VERSION, "again", "/nowhere"),
    (CANCEL,),
    (CANCEL, [1]),
]


@pytest.mark.parametrize("frame", NONSENSE, ids=repr)
async def test_a_frame_that_makes_no_sense_closes_the_link_and_the_worker_goes_on(tmp_path: Path, frame: Any) -> None:
    async with served(tmp_path) as (core, client, _begun):
        client.say(frame, call(2))
        async with asyncio.timeout(10):
            await client.closed.wait()
        gate.set()
        assert await core.value("a", "add", 0) == 0  # nothing after it was taken
        assert await core.value("b", "add", 1) == 1


@pytest.mark.parametrize(
    "first",
    [
        (HELLO, VERSION + 1, "front", "begun"),
        (HELLO, VERSION, "front", "/no/such/file"),
        (HELLO, VERSION, "front", 5.5),
        (HELLO,),
        (CALL, 1, "Account", "a", "add", 0, 1 << 60, b"[1]"),
    ],
)
async def test_a_caller_that_does_not_greet_properly_is_not_served(tmp_path: Path, first: Any) -> None:
    async with served(tmp_path, greet=False) as (core, client, _begun):
        client.say(first, call(2))
        async with asyncio.timeout(10):
            await client.closed.wait()
        assert await core.value("a", "add", 0) == 0


async def test_calls_that_wait_when_their_link_breaks_are_not_made(tmp_path: Path) -> None:
    async with served(tmp_path) as (core, client, begun):
        client.say(call(1, "wait", b""))
        while not core.runner.suspended:  # noqa: ASYNC110
            await asyncio.sleep(0)
        client.say(call(2), (99,))
        gate.set()
        async with asyncio.timeout(10):
            await client.closed.wait()
        assert await core.value("a", "add", 0) == begun[2]
