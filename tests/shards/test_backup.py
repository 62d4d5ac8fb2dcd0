"""The moment of a backup, in a worker's core: no commit between hold and go, everything acknowledged is in it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from actord import StatefulActor
from actord.errors import ActorUnavailable, BadRequest
from actord.shards import backup_admin
from actord.shards.backup_admin import BackupAdmin

from tests.support.harness import Core, open_sqlite, steps

ID = {"id": "0123456789abcdef"}


class Cell(StatefulActor):
    async def put(self, value: int) -> int:
        await self.ctx.storage.put("value", value)
        return value

    async def fill(self, number: int) -> None:
        await self.ctx.storage.put(f"k{number}", bytes(400_000))

    async def nothing(self) -> None:
        pass


@pytest.fixture
def sqlite(tmp_path: Any) -> Any:
    with open_sqlite(tmp_path) as store:
        yield store


def admin(core: Core, *, damaged: tuple[int, ...] = ()) -> BackupAdmin:
    return BackupAdmin([core.shard], {0: core.store}, damaged, 1 << 30)


async def test_no_commit_is_written_between_hold_and_go_and_replies_wait(sqlite: Any) -> None:
    core = Core(Cell, store=sqlite)
    backup = admin(core)
    await core.value("a", "put", 1)
    held = await backup.hold(ID)
    assert held == {"shards": [{"shard": 0, "commit_seq": 1, "frames": sqlite._wal_frames}]}
    calls = [core.call(f"k{n}", "put", n) for n in range(3)]
    await steps()
    assert [call.done for call in calls] == [False] * 3
    assert core.store.commit_seq == 1
    assert await core.value("b", "nothing") is None  # what wrote nothing waits for nobody
    assert await backup.go(ID)
    assert [(await call).value for call in calls] == [0, 1, 2]
    assert core.store.commit_seq == 2
    assert await backup.keep(ID)
    assert await backup.end(ID)
    assert not await backup.keep(ID)


async def test_the_moment_comes_when_the_commit_in_flight_is_durable_and_has_it(sqlite: Any) -> None:
    core = Core(Cell, store=sqlite)
    backup = admin(core)
    core.hold_fsyncs()
    first = core.call("a", "put", 1)
    await steps()
    holding = asyncio.ensure_future(backup.hold(ID))
    second = core.call("b", "put", 2)
    await steps()
    assert not holding.done()
    await core.fsync()
    assert (await holding)["shards"][0]["commit_seq"] == 1
    assert (first.done, second.done, core.flusher.count) == (True, False, 1)
    await backup.go(ID)
    await core.fsync()
    assert second.done
    await backup.end(ID)


async def test_a_hold_that_is_not_ended_ends_by_itself_and_the_backup_with_it(sqlite: Any) -> None:
    core = Core(Cell, store=sqlite)
    backup = admin(core)
    await backup.hold(ID)
    held = core.call("a", "put", 1)
    await asyncio.sleep(backup_admin.HOLD_SECONDS / 2)  # virtual time
    assert not held.done
    await asyncio.sleep(backup_admin.HOLD_SECONDS)
    assert held.done
    assert not await backup.go(ID)
    assert not await backup.end(ID)
    assert sqlite._pins == {}


async def test_a_commit_that_does_not_end_fails_the_hold_and_holds_nothing(sqlite: Any) -> None:
    core = Core(Cell, store=sqlite)
    backup = admin(core)
    core.hold_fsyncs()
    first = core.call("a", "put", 1)
    await steps()
    with pytest.raises(ActorUnavailable, match="slow"):
        await backup.hold(ID)
    second = core.call("b", "put", 2)
    await core.fsync()
    await core.fsync()
    assert (first.done, second.done) == (True, True)
    assert sqlite._pins == {}


async def test_two_backups_do_not_begin_at_once_and_go_on_side_by_side(sqlite: Any) -> None:
    core = Core(Cell, store=sqlite)
    backup, other = admin(core), {"id": "another-backup"}
    await backup.hold(ID)
    with pytest.raises(ActorUnavailable, match="Another"):
        await backup.hold(other)
    await backup.go(ID)
    await core.value("a", "put", 1)
    assert (await backup.hold(other))["shards"][0]["commit_seq"] == 1
    await backup.go(other)
    assert await backup.end(ID)
    assert await backup.end(other)


async def test_a_long_log_is_folded_in_first_and_a_damaged_shard_ends_it(sqlite: Any) -> None:
    core = Core(Cell, store=sqlite)
    sqlite.checkpoint_wal = 1 << 30
    for n in range(4):
        await core.value("a", "fill", n)
    assert sqlite.wal_bytes > backup_admin.CHECKPOINT_ABOVE_BYTES
    await admin(core).prepare(ID)
    assert (sqlite.checkpoints, sqlite.wal_bytes) == (1, 0)
    await core.value("a", "put", 1)
    with pytest.raises(BadRequest, match="damaged"):
        await admin(core, damaged=(3,)).prepare(ID)
