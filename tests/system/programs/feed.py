"""Actors that emit: the number that each event says is the one that it must have."""

from __future__ import annotations

from actord import StatefulActor


class Feed(StatefulActor):
    idle_after = 0.1

    async def say(self, times: int = 1) -> int:
        count: int = await self.ctx.storage.get("count", 0)
        for number in range(count + 1, count + times + 1):
            self.ctx.emit("number", number)
        await self.ctx.storage.put("count", count + times)
        return count + times

    async def shout(self, size: int) -> int:
        """One large event."""
        count: int = await self.ctx.storage.get("count", 0) + 1
        self.ctx.emit("number", [count, "x" * size])
        await self.ctx.storage.put("count", count)
        return count

    async def fail(self) -> None:
        self.ctx.emit("number", -1)
        raise ValueError("this turn fails")

    async def events(self) -> str:
        """A method of this name is called by POST, as ever."""
        return "method"


class Leaving(Feed):
    async def on_deactivate(self) -> None:
        await self.say()


class Bounded(Feed):
    events_kept = 10
