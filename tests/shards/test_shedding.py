"""What a link refuses because its worker asks for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from actord.errors import ActorOverloaded
from actord.shards import shedding
from actord.shards.link import Link
from actord.shards.shedding import Shedding
from actord.shards.wire import CALLX, DOOR, EVENTS, FETCH, FULL, SHED

from tests.shards.test_link import Party, linked, submit

pytestmark = pytest.mark.real_time


async def test_the_share_that_the_worker_asks_for_is_refused_here_until_it_asks_for_another_or_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lot = iter([0.49, 0.51] * 10)
    monkeypatch.setattr(shedding, "random", lambda: next(lot))
    async with linked(tmp_path) as (world, link):
        peer = await world.peer(0)
        peer.ready()
        link.shed = Told(world.changed)
        monkeypatch.setattr(shedding, "SHED_SECONDS", 3600)
        for share, refused in ((0.5, [True, False] * 2), (1.0, [True] * 4), (0.0, [False] * 4)):
            peer.say((SHED, share))
            await world.until(lambda share=share: link.shed.share == share)
            assert [was_refused(link) for _ in range(4)] == refused
        peer.say((SHED, 1.0))
        await world.until(lambda: link.shed.share == 1.0)
        peer.transport.abort()
        await world.until(lambda: world.down == [link])
        assert not was_refused(link), "what the successor can do is not known"


async def test_the_calls_of_a_full_name_are_refused_here_until_it_has_room_or_the_worker_dies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shedding, "SHED_SECONDS", 3600)
    async with linked(tmp_path) as (world, link):
        peer = await world.peer(0)
        peer.ready()
        link.shed = Told(world.changed)
        peer.say((FULL, "T", "n", True), (FULL, "T", "m", True))
        await world.until(lambda: link.shed.told == 2)
        assert [was_refused(link) for _ in range(3)] == [True] * 3
        keyed = ({"key": "k"}, 0, 1 << 50, b"")
        fetch = (["GET", "/", [], None], None, 0, 1 << 50, b"")
        with pytest.raises(ActorOverloaded):
            link.submit(Party(), CALLX, "T", "n", "method", *keyed)
        with pytest.raises(ActorOverloaded):
            link.submit(Party(), FETCH, "T", "n", *fetch)
        # Others are not: other names, the streams of a full one, which take no turn, and the front door.
        link.submit(Party(), CALLX, "T", "other", "method", *keyed)
        link.submit(Party(), CALLX, "U", "n", "method", *keyed)
        link.submit(Party(), FETCH, "T", "n", ["GET", "/", [], None], None, EVENTS, 1 << 50, b"")
        link.submit(Party(), DOOR, ["GET", "/", [], None], 0, 1 << 50, b"")
        peer.say((FULL, "T", "n", False))
        await world.until(lambda: link.shed.told == 3)
        assert not was_refused(link)
        peer.say((FULL, "T", "n", True))
        await world.until(lambda: link.shed.told == 4)
        assert was_refused(link)
        peer.transport.abort()
        await world.until(lambda: world.down == [link])
        assert not was_refused(link), "the mailbox has gone with the worker"
        assert not link.shed.on


class Told(Shedding):
    """Tells the test when it was told something."""

    def __init__(self, changed: asyncio.Event) -> None:
        super().__init__()
        self.changed = changed
        self.told = 0

    def ask(self, share: float) -> None:
        super().ask(share)
        self.changed.set()

    def fill(self, type_: str, name: str, full: bool) -> None:
        super().fill(type_, name, full)
        self.told += 1
        self.changed.set()


async def test_what_is_refused_for_a_worker_ends_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shedding, "SHED_SECONDS", 0)
    async with linked(tmp_path) as (world, link):
        link.shed = Told(world.changed)
        peer = await world.peer(0)
        peer.ready()
        peer.say((SHED, 1.0))
        await world.until(lambda: link.shed.share == 1.0)
        peer.say((FULL, "T", "n", True))
        await world.until(lambda: link.shed.told)
        assert not was_refused(link)
        assert link.shed.share == 0
        assert not link.shed.on


async def test_whoever_wants_to_know_is_told_of_a_share_and_not_of_a_full_name(tmp_path: Path) -> None:
    async with linked(tmp_path) as (world, link):
        shares = []

        def on_ask() -> None:
            shares.append(link.shed.share)
            world.changed.set()

        link.shed.on_ask = on_ask
        peer = await world.peer(0)
        peer.ready()
        peer.say((FULL, "T", "n", True), (SHED, 0.0), (SHED, 0.5))
        await world.until(lambda: bool(shares))
        assert shares == [0.5]


def was_refused(link: Link) -> bool:
    try:
        submit(link)
    except ActorOverloaded as error:
        return (error.applied, error.retry_after) == ("no", 1)
    return False
