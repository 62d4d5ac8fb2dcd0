"""The program of the alarm tests: timers that re-arm themselves, and methods that hold their worker."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from typing import Any

from actord import AlarmInfo, StatefulActor


class Timer(StatefulActor):
    """Keeps the wall-clock time of each run beside the time that it was set for."""

    idle_after = 0.5

    async def alarm(self, info: AlarmInfo) -> None:
        storage = self.ctx.storage
        count = await storage.get("count", 0) + 1
        await storage.put_many({"count": count, f"run/{count:06}": [info.scheduled_time.timestamp(), time.time()]})
        every = await storage.get("every", 0)
        if every:
            self.ctx.set_alarm(timedelta(seconds=every))
        await asyncio.sleep(await storage.get("takes", 0))

    async def arm(self, seconds: float) -> float:
        due = time.time() + seconds
        self.ctx.set_alarm(due)
        return due

    async def every(self, seconds: float) -> None:
        await self.ctx.storage.put("every", seconds)
        self.ctx.set_alarm(timedelta(seconds=seconds))

    async def takes(self, seconds: float) -> None:
        await self.ctx.storage.put("takes", seconds)

    async def count(self) -> int:
        return await self.ctx.storage.get("count", 0)

    async def runs(self) -> list[Any]:
        return list((await self.ctx.storage.list(prefix="run/", limit=1000)).values())

    async def due(self) -> float | None:
        found = await self.ctx.storage.get_alarm()
        return None if found is None else found.timestamp()


class Unlucky(StatefulActor):
    alarm_retries = 0

    async def alarm(self, info: AlarmInfo) -> None:
        if not await self.ctx.storage.get("lucky", False):
            raise RuntimeError("no luck today")
        await self.ctx.storage.put("fired", info.retry_count)

    async def arm(self) -> None:
        self.ctx.set_alarm(0)

    async def become_lucky(self) -> None:
        await self.ctx.storage.put("lucky", True)

    async def fired(self) -> int | None:
        return await self.ctx.storage.get("fired")


class Stuck(StatefulActor):
    async def in_python(self) -> None:
        while True:
            pass

    async def in_c(self) -> None:
        """One call into C that holds the interpreter and looks for no signals."""
        sum(range(1 << 62))

    async def after_an_await(self) -> None:
        await asyncio.sleep(0)
        sum(range(1 << 62))

    async def blocks(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251

    async def blocks_later(self, seconds: float) -> None:
        await asyncio.sleep(0)
        time.sleep(seconds)  # noqa: ASYNC251

    async def ping(self) -> str:
        return "pong"
