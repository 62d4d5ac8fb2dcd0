"""An actor whose alarm handler the test writes, and a wall clock that the test sets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from actord import ActorError, AlarmTimeError, StatefulActor
from actord.alarm import AlarmInfo
from actord.shards import alarm as clock

from tests.support.harness import Core, steps

BASE = 1_700_000_000.0  # what the wall clock shows when the loop's shows 1,000


class Wall:
    """The wall clock: it goes with the loop's, and can be set."""

    def __init__(self) -> None:
        self.offset = BASE - 1000.0

    def __call__(self) -> int:
        return round((asyncio.get_running_loop().time() + self.offset) * 1e9)

    def now(self) -> float:
        return self() / 1e9


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    wall = Wall()
    monkeypatch.setattr(clock, "time_ns", wall)
    return wall


class Timer(StatefulActor):
    idle_after = 2.0

    fired: list[tuple[str, AlarmInfo, float]]
    script: Callable[[Timer, AlarmInfo], Any] | None
    wall: Wall

    async def alarm(self, info: AlarmInfo) -> None:
        self.fired.append((self.ctx.id, info, self.wall.now()))
        storage = self.ctx.storage
        await storage.put("runs", await storage.get("runs", 0) + 1)
        if type(self).script is not None:
            result = type(self).script(self, info)
            if asyncio.iscoroutine(result):
                await result

    async def arm(self, seconds: float) -> None:
        self.ctx.set_alarm(timedelta(seconds=seconds))

    async def arm_at(self, when: float) -> str | None:
        await self.ctx.storage.set_alarm(when)
        found = await self.ctx.storage.get_alarm()
        return found and found.isoformat()

    async def disarm(self) -> None:
        await self.ctx.storage.delete_alarm()

    async def look(self) -> str | None:
        found = await self.ctx.storage.get_alarm()
        return found and found.isoformat()

    async def runs(self) -> int:
        return await self.ctx.storage.get("runs", 0)

    async def arm_and_fail(self, seconds: float) -> None:
        self.ctx.set_alarm(timedelta(seconds=seconds))
        raise ActorError("no")

    async def disarm_and_fail(self) -> None:
        await self.ctx.storage.delete_alarm()
        raise ActorError("no")

    async def clear(self) -> None:
        await self.ctx.storage.put("a", 1)
        await self.ctx.storage.delete_all()

    async def wait(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "waited"

    async def bad(self, kind: str) -> str | None:
        await self.ctx.storage.put("before", 1)
        with pytest.raises(AlarmTimeError):
            self.ctx.set_alarm(BAD[kind])
        return await self.look()

    async def bad_uncaught(self) -> None:
        await self.ctx.storage.put("before", 1)
        self.ctx.set_alarm(True)


BAD: dict[str, Any] = {
    "naive": datetime(2030, 1, 1),
    "milliseconds": 1_700_000_000_000,
    "milliseconds as float": 1.7e12,
    "nan": float("nan"),
    "infinite": float("inf"),
    "minus infinite": float("-inf"),
    "bool": True,
    "text": "2030-01-01T00:00:00Z",
    "none": None,
    "date": datetime(2030, 1, 1).date(),
    "beyond the calendar": timedelta.max,
    "a huge int": 10**6000,
}


@pytest.fixture
def timers(wall: Wall) -> type[Timer]:
    Timer.fired = []
    Timer.script = None
    Timer.wall = wall
    return Timer


def started(store: Any, *types: type[StatefulActor], **settings: Any) -> Core:
    core = Core(*types, store=store, **settings)
    core.alarms.start()
    return core


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


async def sleep(seconds: float) -> None:
    await asyncio.sleep(seconds)
    await steps()
