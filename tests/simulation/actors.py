"""The actors of the simulation. Every turn leaves a row that says which operation it was and its place in the order.

What a turn does is decided when its call is sent (``Plan``); the awaits within it are as long as the dice say.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from actord import ActorError, StatefulActor, TurnEnded
from actord.alarm import AlarmInfo
from actord.shards import alarm as wall

if TYPE_CHECKING:
    from tests.simulation.world import World


@dataclass(slots=True)
class Plan:
    read: bool = False
    fail: bool = False
    sql: bool = False
    nested: bool = False  # a transaction that is undone
    alarm: int | None = None  # due, ms; 0 removes it
    sleeps: tuple[float, ...] = ()
    swallow: bool = False  # goes on after it was cancelled
    block: float = 0.0  # seconds for which it holds the loop


class Sim(StatefulActor):
    idle_after = 1.0
    mailbox = 20
    world: World

    async def _pause(self, plan: Plan, number: int) -> None:
        wait = plan.sleeps[number] if number < len(plan.sleeps) else -1.0
        if wait < 0:
            return
        try:
            await asyncio.sleep(wait)
        except asyncio.CancelledError:
            world = self.world
            if world.dead or not plan.swallow:
                raise
            try:
                await self.ctx.storage.put("late", 1)
            except TurnEnded:
                raise
            world.violation(f"{self.ctx.id}: a turn that is over wrote")

    async def on_activate(self) -> None:
        world = self.world
        if world.dead or not world.faults.on:
            return
        chance = world.dice.random()
        if chance < 0.2:
            await asyncio.sleep(world.dice.random())
        elif chance < 0.21:
            raise RuntimeError("not today")

    async def op(self, number: int) -> list[int]:
        world = self.world
        plan = world.begin(self, number)
        try:
            storage = self.ctx.storage
            await self._pause(plan, 0)
            before = await storage.get("n", 0)
            if plan.read:
                return [before, before]
            await self._pause(plan, 1)
            if plan.block:
                asyncio.get_running_loop().advance(plan.block)  # type: ignore[attr-defined]
            if plan.sql:
                await self._count_in_sql(number)
            await storage.put("n", before + 1)
            await storage.put(f"op/{number}", [before + 1, plan.alarm])
            if plan.nested:
                try:
                    async with storage.transaction():
                        await storage.put("junk", number)
                        await self._pause(plan, 2)
                        raise KeyError
                except KeyError:
                    pass
            if plan.alarm == 0:
                storage.delete_alarm()
            elif plan.alarm is not None:
                storage.set_alarm(datetime.fromtimestamp(plan.alarm / 1000, UTC))
            await self._pause(plan, 3)
            if plan.fail:
                raise ActorError("on purpose")
            return [before, before + 1]
        finally:
            world.end(self)

    async def _count_in_sql(self, number: int) -> None:
        sql, storage = self.ctx.storage.sql, self.ctx.storage
        sql.exec("CREATE TABLE IF NOT EXISTS op (number INTEGER PRIMARY KEY)")
        rows = sql.exec("SELECT count(*) AS rows FROM op").one()["rows"]
        counted = await storage.get("sql", 0)
        if rows != counted:
            self.world.violation(f"{self.ctx.id}: SQL has {rows} rows, the keys say {counted}")
        sql.exec("INSERT INTO op VALUES (?)", number)
        await storage.put("sql", counted + 1)

    async def alarm(self, info: AlarmInfo) -> None:
        world = self.world
        scheduled = round(info.scheduled_time.timestamp() * 1000)
        world.begin_alarm(self, scheduled)
        try:
            if world.alarm_fails(scheduled):
                raise RuntimeError("told to")
            if not world.dead and world.faults.on and world.dice.random() < 0.3:
                await asyncio.sleep(world.dice.random())
            storage: Any = self.ctx.storage
            before = await storage.get("n", 0)
            await storage.put("n", before + 1)
            await storage.put(f"fired/{before + 1}", scheduled)
            if wall.wall_ms() < scheduled:
                world.violation(f"{self.ctx.id}: the alarm of {scheduled} is early")
        finally:
            world.end(self)


class Leaving(Sim):
    """The same, with something to do before it leaves memory."""

    async def on_deactivate(self) -> None:
        await asyncio.sleep(0)
