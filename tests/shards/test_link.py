"""The calling end of a link, over a real unix socket, against a worker that does what the test says."""

from __future__ import annotations

import asyncio
import mmap
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from actord.errors import ActorOverloaded
from actord.limits import BEGUN_BYTES, LINK_CALLS
from actord.shards import link as link_module
from actord.shards.link import SENT_AGAIN, Link, Waiter
from actord.shards.wire import (
    CALL,
    CALLX,
    CANCEL,
    CYCLE,
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

pytestmark = pytest.mark.real_time


class Party(Waiter):
    """One call's waiting party; being finished twice is an error."""

    def __init__(self) -> None:
        self.end: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def on_reply(self, status: int, body: bytes, head: bytes | None) -> None:
        self.end.set_result((status, body, head))

    def on_lost(self, begun: bool) -> None:
        self.end.set_result("lost begun" if begun else "lost unbegun")


class Peer(asyncio.Protocol):
    """A worker's end: keeps the frames; the test says what to answer."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.reader = BatchReader()
        self.frames: list[Any] = []
        self.gone = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.world.peers.append(self)
        self.world.changed.set()

    def data_received(self, data: bytes) -> None:
        self.frames += self.reader.feed(data)
        self.world.changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone.set()
        self.world.changed.set()

    def say(self, *frames: Any) -> None:
        self.transport.write(pack_batch(list(frames)))

    def ready(self) -> None:
        self.say((READY, VERSION, {"front_door": True}))

    @property
    def calls(self) -> list[int]:
        return [frame[1] for frame in self.frames if frame[0] in (CALL, CALLX)]

    def begin(self, id_: int) -> None:
        with open(self.frames[0][3], "r+b") as file, mmap.mmap(file.fileno(), BEGUN_BYTES) as begun:
            begun[id_] = 1


class World:
    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.changed = asyncio.Event()
        self.ready: list[Any] = []
        self.down: list[Any] = []

    async def until(self, condition: Any) -> Any:
        """The first true value of ``condition``, looked at whenever something happens."""
        async with asyncio.timeout(10):
            while not (found := condition()):
                self.changed.clear()
                await self.changed.wait()
        return found

    async def peer(self, number: int, frames: int = 1) -> Peer:
        """The worker's ``number``-th life, when so many frames have come."""
        await self.until(lambda: len(self.peers) > number and len(self.peers[number].frames) >= frames)
        return self.peers[number]


@asynccontextmanager
async def linked(tmp_path: Path) -> AsyncIterator[tuple[World, Link]]:
    world = World()
    path = str(tmp_path / "w")
    server = await asyncio.get_running_loop().create_unix_server(lambda: Peer(world), path)
    link = Link(
        path, caller="test", begun_path=str(tmp_path / "begun"), on_ready=world.ready.append, on_down=world.down.append
    )
    link.connect()
    try:
        yield world, link
    finally:
        link.close()
        server.close()
        assert "begun" not in os.listdir(tmp_path)


def submit(link: Link, body: bytes = b"", within: float = 60) -> tuple[int, Party]:
    party = Party()
    return link.submit(party, CALL, "T", "n", "m", 0, int((monotonic() + within) * 1000), body), party


def submit_keyed(link: Link, within: float = 60) -> tuple[int, Party]:
    party = Party()
    deadline = int((monotonic() + within) * 1000)
    return link.submit(party, CALLX, "T", "n", "m", {"key": "k"}, 0, deadline, b""), party


async def test_calls_wait_for_the_worker_and_leave_in_order_in_one_batch(tmp_path: Path) -> None:
    async with linked(tmp_path) as (world, link):
        early = [submit(link)[0] for _ in range(5)]
        peer = await world.peer(0)
        assert peer.frames == [[HELLO, VERSION, "test", str(tmp_path / "begun")]]
        assert not link.ready
        peer.ready()
        await world.peer(0, 6)
        late = [submit(link)[0] for _ in range(5)]
        await world.peer(0, 11)
        assert peer.calls == early + late
        assert link.ready
        assert link.facts == {"front_door": True}
        assert len(world.ready) == 1


async def test_every_call_is_finished_exactly_once_with_its_own_reply(tmp_path: Path) -> None:
    async with linked(tmp_path) as (world, link):
        peer = await world.peer(0)
        peer.ready()
        parties = dict(submit(link, b"x" * i) for i in range(20))
        await world.peer(0, 21)
        for id_ in reversed(peer.calls):
            peer.begin(id_)
            peer.say((REPLY, id_, 200, b"%d" % id_, None))
        for id_, party in parties.items():
            assert await party.end == (200, b"%d" % id_, None)
        assert len(link) == 0
        assert link._bytes == 0
        assert len(link._free) == LINK_CALLS
        assert not any(link._begun[:])


async def test_when_the_worker_dies_unbegun_calls_are_sent_again_in_order_and_begun_ones_are_lost(
    tmp_path: Path,
) -> None:
    async with linked(tmp_path) as (world, link):
        first = await world.peer(0)
        first.ready()
        calls = [submit(link) for _ in range(6)]
        await world.peer(0, 7)
        for id_, _ in (calls[1], calls[4]):
            first.begin(id_)
        first.transport.abort()
        assert [await calls[i][1].end for i in (1, 4)] == ["lost begun"] * 2
        second = await world.peer(1)
        assert world.down == [link]
        second.ready()
        await world.peer(1, 5)
        assert second.calls == [calls[i][0] for i in (0, 2, 3, 5)]
        for id_ in second.calls:
            second.say((REPLY, id_, 200, b"", None))
        assert [await calls[i][1].end for i in (0, 2, 3, 5)] == [(200, b"", None)] * 4
        assert len(link._free) == LINK_CALLS


async def test_a_call_that_is_not_begun_by_its_deadline_is_lost_as_unbegun_and_a_begun_one_gets_its_grace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with linked(tmp_path) as (world, link):
        peer = await world.peer(0)
        peer.ready()
        unbegun, begun, patient = submit(link, within=1), submit(link, within=1), submit(link, within=60)
        await world.peer(0, 4)
        peer.begin(begun[0])
        link.expire()
        assert not unbegun[1].end.done()
        now = monotonic()
        monkeypatch.setattr(link_module, "monotonic", lambda: now + 2)
        link.expire()
        assert await unbegun[1].end == "lost unbegun"
        assert not begun[1].end.done()
        monkeypatch.setattr(link_module, "monotonic", lambda: now + 7)
        link.expire()
        assert await begun[1].end == "lost begun"
        assert not patient[1].end.done()
        await world.until(lambda: [f[1] for f in peer.frames if f[0] == CANCEL] == [unbegun[0], begun[0]])
        free = len(link._free)
        peer.say(*((REPLY, id_, 503, b"", None) for id_, _ in (unbegun, begun)))  # every call is answered by one reply
        peer.say((REPLY, patient[0], 200, b"", None))
        await patient[1].end
        assert len(link._free) == free + 3


async def test_a_late_call_expires_although_the_worker_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with linked(tmp_path) as (_world, link):
        call = submit(link, within=1)
        now = monotonic()
        monkeypatch.setattr(link_module, "monotonic", lambda: now + 2)
        link.expire()
        assert await call[1].end == "lost unbegun"
        assert len(link._free) == LINK_CALLS


async def test_cancel_returns_the_id_when_the_worker_has_answered_or_gone(tmp_path: Path) -> None:
    async with linked(tmp_path) as (world, link):
        away, _ = submit(link)
        link.cancel(away)  # nobody knows of it: free at once
        assert len(link._free) == LINK_CALLS
        peer = await world.peer(0)
        peer.ready()
        (one, party), (two, _) = submit(link), submit(link)
        await world.peer(0, 3)
        link.cancel(one)
        link.cancel(one)  # a second time changes nothing
        link.cancel(two)
        await world.until(lambda: [f[1] for f in peer.frames if f[0] == CANCEL] == [one, two])
        assert len(link._free) == LINK_CALLS - 2
        peer.say((REPLY, one, 503, b"", None))
        await world.until(lambda: world.changed.set() or True)
        peer.transport.close()
        await world.peer(1)
        assert len(link._free) == LINK_CALLS
        assert not party.end.done()


async def test_while_the_worker_drains_new_calls_wait_for_its_successor(tmp_path: Path) -> None:
    async with linked(tmp_path) as (world, link):
        old = await world.peer(0)
        old.ready()
        before = submit(link)
        await world.peer(0, 2)
        old.say((DRAINING,))
        async with asyncio.timeout(10):
            while link.ready:  # noqa: ASYNC110
                await asyncio.sleep(0)
        held, given_up = submit(link), submit(link)
        link.cancel(given_up[0])
        old.say((REPLY, before[0], 200, b"", None))
        assert await before[1].end == (200, b"", None)
        assert old.calls == [before[0]]
        old.transport.close()
        new = await world.peer(1)
        new.ready()
        await world.peer(1, 2)
        assert new.calls == [held[0]]
        assert not held[1].end.done()


async def test_nothing_is_written_to_a_worker_that_leaves_and_its_last_replies_are_read(tmp_path: Path) -> None:
    async with linked(tmp_path) as (world, link):
        old = await world.peer(0)
        old.ready()
        answered, kept, given_up = submit(link), submit(link), submit(link)
        await world.peer(0, 4)
        old.say((LEAVING,))
        await world.until(lambda: old.frames[-1] == [STOPPED])
        assert not link.ready
        assert link.moving
        later = submit(link)
        link.cancel(given_up[0])
        link.say((CYCLE, 1, []))
        old.say((REPLY, answered[0], 200, b"", None))
        assert await answered[1].end == (200, b"", None)
        old.transport.close()
        new = await world.peer(1)
        assert old.frames[-1] == [STOPPED]
        new.ready()
        await world.peer(1, 4)
        assert new.calls == [kept[0], later[0]], "given up is given up"
        assert new.frames[-1] == [CYCLE, 1, []]
        assert not link.moving


async def test_what_is_held_leaves_in_its_order_when_it_is_let_go(tmp_path: Path) -> None:
    async with linked(tmp_path) as (world, link):
        peer = await world.peer(0)
        peer.ready()
        before = submit(link)
        await world.peer(0, 2)
        link.hold(True)
        held = [submit(link) for _ in range(3)]
        link.cancel(held[1][0])
        free = len(link._free)
        assert link.moving, "the server counts as ready"
        peer.say((REPLY, before[0], 200, b"", None))
        assert await before[1].end == (200, b"", None), "answers come all the same"
        assert peer.calls == [before[0]]
        link.hold(False)
        assert not link.moving
        await world.peer(0, 4)
        assert peer.calls == [before[0], held[0][0], held[2][0]]
        assert len(link._free) == free + 1
        assert CANCEL not in [frame[0] for frame in peer.frames]


async def test_a_successor_gets_what_was_held_once(tmp_path: Path) -> None:
    async with linked(tmp_path) as (world, link):
        old = await world.peer(0)
        old.ready()
        before = submit(link)
        await world.peer(0, 2)
        link.hold(True)
        held = submit(link)
        old.transport.close()
        new = await world.peer(1)
        new.ready()
        await world.peer(1, 3)
        link.hold(False)
        after = submit(link)
        await world.peer(1, 4)
        assert new.calls == [before[0], held[0], after[0]]


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x01\x00\x00\x00\xc1",
        pack_batch([(99, 1)]),
        pack_batch([(REPLY, 60_000, 200, b"", None)]),
        pack_batch([(READY, VERSION + 1, {})]),
        pack_batch([(REPLY, 5)]),
        pack_batch([(REPLY, [1], 200, b"", None)]),
        pack_batch([(READY,)]),
        b"\xff\xff\xff\xff",
    ],
)
async def test_a_worker_that_speaks_nonsense_makes_everything_that_was_sent_unknown(
    tmp_path: Path, nonsense: bytes
) -> None:
    async with linked(tmp_path) as (world, link):
        peer = await world.peer(0)
        peer.ready()
        sent = submit(link)
        await world.peer(0, 2)
        peer.transport.write(nonsense)
        assert await sent[1].end == "lost begun"
        await peer.gone.wait()
        again = await world.peer(1)
        again.ready()
        fresh = submit(link)
        await world.peer(1, 2)
        again.say((REPLY, fresh[0], 200, b"", None))
        assert await fresh[1].end == (200, b"", None)


async def test_a_begun_call_with_a_key_is_sent_again_and_says_so_also_when_the_link_was_garbled(tmp_path: Path) -> None:
    async with linked(tmp_path) as (world, link):
        first = await world.peer(0)
        first.ready()
        plain, keyed, behind, other = submit(link), submit_keyed(link), submit(link), submit_keyed(link)
        await world.peer(0, 5)
        for call in (plain, keyed):
            first.begin(call[0])
        first.transport.abort()
        assert await plain[1].end == "lost begun"
        second = await world.peer(1)
        second.ready()
        await world.peer(1, 4)
        assert second.calls == [keyed[0], behind[0], other[0]]
        assert [frame[5] for frame in second.frames if frame[0] == CALLX] == [{"key": "k", "again": 1}, {"key": "k"}]
        second.transport.write(b"\xff\xff\xff\xff")
        assert await behind[1].end == "lost begun"
        third = await world.peer(2)
        third.ready()
        await world.peer(2, 3)
        assert [frame[5]["again"] for frame in third.frames[1:]] == [2, 1]
        third.say((REPLY, keyed[0], 200, b"7", None), (REPLY, other[0], 200, b"8", None))
        assert await keyed[1].end == (200, b"7", None)
        assert await other[1].end == (200, b"8", None)


async def test_a_call_with_a_key_that_kills_each_worker_is_lost_at_last(tmp_path: Path) -> None:
    async with linked(tmp_path) as (world, link):
        (await world.peer(0)).ready()
        keyed = submit_keyed(link)
        for life in range(SENT_AGAIN + 1):
            assert not keyed[1].end.done()
            peer = await world.peer(life)
            if life:
                peer.ready()
            await world.peer(life, 2)
            peer.begin(keyed[0])
            peer.transport.abort()
        assert await keyed[1].end == "lost begun"


async def test_a_begun_call_with_a_key_that_nobody_takes_again_is_not_said_to_be_unbegun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with linked(tmp_path) as (world, link):
        peer = await world.peer(0)
        peer.ready()
        keyed = submit_keyed(link, within=0.0)
        await world.peer(0, 2)
        peer.begin(keyed[0])
        peer.transport.abort()
        await world.peer(1)  # which never greets
        later = monotonic() + link_module.BEGUN_GRACE_MS / 1000 + 1
        monkeypatch.setattr(link_module, "monotonic", lambda: later)
        link.expire()
        assert await keyed[1].end == "lost begun"


async def test_a_full_link_refuses_and_a_closed_one_tells_everybody_the_truth(tmp_path: Path) -> None:
    async with linked(tmp_path) as (world, link):
        peer = await world.peer(0)
        peer.ready()
        begun, unbegun = submit(link), submit(link)
        await world.peer(0, 3)
        peer.begin(begun[0])
        rest = [submit(link) for _ in range(LINK_CALLS - 2)]
        with pytest.raises(ActorOverloaded):
            submit(link)
        link.close()
        assert await begun[1].end == "lost begun"
        assert await unbegun[1].end == "lost unbegun"
        assert {await party.end for _, party in rest} == {"lost unbegun"}


async def test_bodies_on_their_way_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "LINK_BYTES", 1000)
    async with linked(tmp_path) as (_world, link):
        first, _ = submit(link, b"x" * 900)
        submit(link, b"x" * 900)
        with pytest.raises(ActorOverloaded):
            submit(link)
        link.cancel(first)
        submit(link)
