"""What a worker lets a direct client do, and what it does not."""

from __future__ import annotations

import asyncio
import mmap
import os
from pathlib import Path
from typing import Any

import pytest
from actord import StatefulActor, codec, limits
from actord.settings import Http
from actord.shards import wire
from actord.shards.direct import CALLER, CLIENT, DirectDoor
from actord.shards.slots import shard_of_slot, slot_of
from actord.shards.wire import CALL, CALLX, ELSEWHERE, HELLO, READY, REPLY, VERSION, Frame

from tests.support.harness import Core, steps

PYTHON = wire.MSGPACK | wire.PAIR
BODY = codec.encode([[], {}])
SOON = 1 << 40


class Box(StatefulActor):
    async def add(self, amount: int = 1) -> int:
        total: int = await self.ctx.storage.get("n", 0) + amount
        await self.ctx.storage.put("n", total)
        return total


class Client:
    """A direct client without a socket: the transport of its connection."""

    def __init__(self, door: DirectDoor) -> None:
        self.frames: list[Frame] = []
        self.aborted = False
        self.reading = True
        self._reader = wire.BatchReader()
        self.connection = door()
        self.connection.connection_made(self)  # type: ignore[arg-type]

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def write(self, data: bytes) -> None:
        self.frames += self._reader.feed(data)

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    async def tell(self, *frames: Frame) -> None:
        self.connection.data_received(wire.pack_batch(list(frames)))
        await steps()

    async def greet(self) -> dict[str, Any]:
        await self.tell((HELLO, VERSION, CLIENT, "secret"))
        [(kind, version, facts)] = self.frames
        assert (kind, version) == (READY, VERSION)
        self.frames.clear()
        found: dict[str, Any] = facts
        return found

    def of(self, id_: int) -> Frame:
        [frame] = [frame for frame in self.frames if len(frame) > 1 and frame[1] == id_]
        return frame

    def name(self, id_: int) -> str:
        """The class of the error that answers a call."""
        found: str = codec.decode(self.of(id_)[3])["name"]
        return found


def call(id_: int, name: str = "a", body: bytes = BODY, **other: Any) -> Frame:
    fields = {"type": "Box", "method": "add", "flags": PYTHON, "deadline": SOON} | other
    return (CALL, id_, fields["type"], name, fields["method"], fields["flags"], fields["deadline"], body)


def keyed(id_: int, extras: Any, name: str = "a") -> Frame:
    return (CALLX, id_, "Box", name, "add", extras, PYTHON, SOON, BODY)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def open_door(core: Core, folder: Path, **http: Any) -> DirectDoor:
    return DirectDoor(core.dispatcher, Http(**http), runtime_dir=str(folder), index=0, epoch="now", ticket="secret")


# -- coming in


@pytest.mark.parametrize(
    "hello",
    [
        (HELLO, VERSION, CLIENT, "wrong"),
        (HELLO, VERSION, CLIENT, ""),
        (HELLO, VERSION, CLIENT, None),
        (HELLO, VERSION, "front-0", "secret"),
        (HELLO, VERSION + 1, CLIENT, "secret"),
        (HELLO, VERSION, CLIENT),
        call(1),
    ],
)
async def test_nothing_is_taken_without_the_ticket(folder: Path, hello: Frame) -> None:
    core = Core(Box)
    client = Client(open_door(core, folder))
    await client.tell(hello, call(1))
    assert client.aborted
    assert client.frames == []
    assert core.dispatcher.find(("Box", "a")) is None
    assert os.listdir(folder) == []


async def test_a_client_that_does_not_greet_is_cut_off(folder: Path) -> None:
    client = Client(open_door(Core(Box), folder, head_timeout=10.0))
    await asyncio.sleep(9.9)
    assert not client.aborted
    await asyncio.sleep(0.2)
    assert client.aborted


async def test_connections_are_bounded(folder: Path) -> None:
    door = open_door(Core(Box), folder, connections=1)
    first = Client(door)
    second = Client(door)
    assert second.aborted
    for client in (first, second):
        client.connection.connection_lost(None)
    assert not Client(door).aborted


# -- what a client may say


@pytest.mark.parametrize(
    "frame",
    [
        (wire.FETCH, 1, "Box", "a", ["GET", "/", [], None], None, 0, SOON, b""),
        (wire.DOOR, 1, ["GET", "/", [], None], 0, SOON, b""),
        (wire.PROBE, 1, "token", 0, [], []),
        (wire.CYCLE, 1, []),
        (wire.WS_HELD, []),
        (wire.WS_OPEN, 1, 1, "u", "Box", "a", [], SOON),
        (wire.BODY, 1, b"", True),
        (wire.GRANT, 1, 1),
        (wire.HELLO, VERSION, CLIENT, "secret"),
        (99, 1),
        call(1, flags=PYTHON | 1 << 16),
        call(1, flags=wire.TIMING),
        call(1, flags="1"),
        call(1, type="x" * 513),
        call(1, method="x" * 513),
        call(1, type=1),
        call(1, deadline="soon"),
        call(-1),
        call(limits.DIRECT_CALLS),
        keyed(1, {"msg": [0, 1, 1]}),
        keyed(1, {"key": "k", "again": 1}),
        keyed(1, {"key": "k", "from": ["Box", "b", 1]}),
        keyed(1, {}),
        keyed(1, None),
    ],
    ids=repr,
)
async def test_only_calls_of_methods_are_a_clients(folder: Path, frame: Frame) -> None:
    core = Core(Box)
    client = Client(open_door(core, folder))
    await client.greet()
    await client.tell(frame)
    assert client.aborted
    assert client.frames == []
    assert core.dispatcher.find(("Box", "a")) is None


async def test_an_id_is_used_once_at_a_time(folder: Path) -> None:
    core = Core(Box)
    core.flusher.auto = False
    client = Client(open_door(core, folder))
    await client.greet()
    await client.tell(call(1))
    await client.tell(call(1))
    assert client.aborted


async def test_calls_are_answered_after_their_commit(folder: Path) -> None:
    core = Core(Box)
    core.flusher.auto = False
    client = Client(open_door(core, folder))
    await client.greet()
    await client.tell(call(1), keyed(2, {"key": "k"}))
    assert client.frames == []
    core.flusher.fsync()
    core.flusher.auto = True
    await steps()
    while core.flusher.waiting:
        core.flusher.fsync()
        await steps()
    assert [(frame[0], frame[1], codec.decode(frame[3])) for frame in client.frames] == [(REPLY, 1, 1), (REPLY, 2, 2)]


@pytest.mark.parametrize("key", ["", "x" * 256, "é", "a\nb"])
async def test_a_key_is_a_legal_one(folder: Path, key: str) -> None:
    client = Client(open_door(Core(Box), folder))
    await client.greet()
    await client.tell(keyed(1, {"key": key}))
    assert client.name(1) == "BadRequest"


# -- limits


async def test_a_body_has_the_limit_that_the_front_has(folder: Path) -> None:
    core = Core(Box)
    door = open_door(core, folder, body_bytes=1_000)
    client = Client(door)
    facts = await client.greet()
    assert facts["body_bytes"] == 1_000
    await client.tell(call(1, body=b"x" * 1_001), call(2))
    assert client.name(1) == "PayloadTooLarge"
    assert codec.decode(client.of(2)[3]) == 1
    client.connection.data_received((facts["batch_bytes"] + 1).to_bytes(4, "little"))
    assert client.aborted


async def test_bodies_that_wait_are_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actord.shards.direct.LINK_BYTES", 2 * len(BODY))
    core = Core(Box)
    core.flusher.auto = False
    door = open_door(core, folder)
    client = Client(door)
    await client.greet()
    await client.tell(call(1), call(2), call(3))
    assert client.name(3) == "ActorOverloaded"
    client.connection.connection_lost(None)
    assert door.waiting == 0


async def test_what_is_being_received_is_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actord.shards.direct.LINK_BYTES", 1_000)
    door = open_door(Core(Box), folder)
    one, other = Client(door), Client(door)
    await one.greet()
    await other.greet()
    half = wire.pack_batch([call(1, body=b"x" * 2_000)])[:600]
    one.connection.data_received(half)
    assert not one.aborted
    other.connection.data_received(half)
    assert other.aborted
    other.connection.connection_lost(None)
    assert door.receiving == 600


async def test_a_client_that_does_not_read_is_not_read_from_and_then_cut_off(folder: Path) -> None:
    client = Client(open_door(Core(Box), folder, write_stall=30.0))
    await client.greet()
    client.connection.pause_writing()
    assert not client.reading
    client.connection.resume_writing()
    assert client.reading
    await asyncio.sleep(31)
    assert not client.aborted
    client.connection.pause_writing()
    await asyncio.sleep(31)
    assert client.aborted


async def test_the_mailbox_is_full_for_direct_calls_too(folder: Path) -> None:
    core = Core(Box, mailbox=2)
    core.flusher.auto = False
    client = Client(open_door(core, folder))
    await client.greet()
    await client.tell(*(call(id_) for id_ in range(5)))
    refused = [id_ for id_ in range(5) if any(frame[1] == id_ for frame in client.frames)]
    assert all(client.name(id_) == "ActorOverloaded" for id_ in refused)


# -- what is not for this worker


async def test_a_name_of_another_worker_is_not_taken(folder: Path) -> None:
    core = Core(Box, shard=0, shards=2)
    client = Client(open_door(core, folder))
    await client.greet()
    names = [next(f"n{i}" for i in range(99) if shard_of_slot(slot_of("Box", f"n{i}"), 2) == s) for s in (0, 1)]
    await client.tell(call(0, names[0]), call(1, names[1]))
    assert client.of(1) == [ELSEWHERE, 1]
    assert codec.decode(client.of(0)[3]) == 1


async def test_a_worker_that_drains_answers_what_it_has_and_takes_no_more(folder: Path) -> None:
    core = Core(Box)
    core.flusher.auto = False
    client = Client(open_door(core, folder))
    await client.greet()
    await client.tell(call(1))
    for connection in core.dispatcher.connections:
        connection.say_draining()
    await client.tell(call(2))
    core.flusher.fsync()
    await steps()
    assert client.frames == [[wire.DRAINING], [ELSEWHERE, 2], client.of(1)]
    assert client.of(1)[0] == REPLY


# -- the begun map


async def test_the_begun_map_outlives_the_worker_and_only_the_client_unmarks(folder: Path) -> None:
    core = Core(Box)
    core.flusher.auto = False
    client = Client(open_door(core, folder))
    facts = await client.greet()
    assert os.stat(facts["begun"]).st_mode & 0o777 == 0o600
    fd = os.open(facts["begun"], os.O_RDWR)
    begun = mmap.mmap(fd, 0)
    os.close(fd)
    await client.tell(call(1, "busy"))
    assert bytes(begun[:3]) == b"\0\1\0"
    core.flusher.fsync()
    await steps()
    assert client.of(1)[0] == REPLY
    assert begun[1] == 1
    client.connection.connection_lost(None)
    assert os.listdir(folder) == []


async def test_what_a_killed_worker_left_is_removed(folder: Path) -> None:
    (folder / "begun-direct-worker0-1-1").touch()
    (folder / "begun-direct-worker1-1-1").touch()
    open_door(Core(Box), folder)
    assert os.listdir(folder) == ["begun-direct-worker1-1-1"]


# -- reloads


async def test_while_a_reload_holds_everything_back_nothing_is_taken(folder: Path) -> None:
    door = open_door(Core(Box), folder)
    client = Client(door)
    await client.greet()
    door.held = True
    await client.tell(call(1))
    door.held = False
    await client.tell(call(2))
    assert client.of(1) == [ELSEWHERE, 1]
    assert codec.decode(client.of(2)[3]) == 1


@pytest.mark.parametrize(("caller", "waits"), [(CLIENT, True), (CALLER, False)])
async def test_a_worker_that_leaves_waits_for_the_last_word_of_those_who_have_many_calls(
    folder: Path, caller: str, waits: bool
) -> None:
    core = Core(Box)
    client = Client(open_door(core, folder))
    await client.tell((HELLO, VERSION, caller, "secret"))
    [connection] = core.dispatcher.connections
    connection.say_draining()
    assert (connection.stopped is not None) == waits
    if connection.stopped is not None:
        await client.tell(call(1), (wire.STOPPED,))
        assert client.of(1) == [ELSEWHERE, 1]
        assert connection.stopped.is_set()
    connection.stop()
    assert wire.LEAVING not in [frame[0] for frame in client.frames]


async def test_a_worker_that_leaves_greets_nobody(folder: Path) -> None:
    core = Core(Box)
    core.dispatcher.leaving = True
    client = Client(open_door(core, folder))
    await client.tell((HELLO, VERSION, CLIENT, "secret"))
    assert client.aborted
    assert client.frames == []


async def test_direct_calls_are_from_outside(folder: Path) -> None:
    """So a crowded worker refuses them."""
    client = Client(open_door(Core(Box), folder))
    await client.greet()
    assert client.connection.outside
