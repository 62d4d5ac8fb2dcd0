"""The program of the fault tests: every call leaves a mark, so that an audit can tell what was carried out."""

from __future__ import annotations

from typing import Any

from actord import StatefulActor

EVENTS_KEPT = 15


class Ledger(StatefulActor):
    """Each deposit is stored under its mark, with its number; the count and the sum stand beside it; it is an event."""

    events_kept = EVENTS_KEPT

    async def deposit(self, mark: str, amount: int) -> dict[str, Any]:
        storage = self.ctx.storage
        count = await storage.get("count", 0) + 1
        total = await storage.get("total", 0) + amount
        await storage.put(f"mark/{mark}", [count, amount])
        await storage.put_many({"count": count, "total": total})
        self.ctx.emit("deposit", mark)
        return {"mark": mark, "number": count, "total": total}

    async def statement(self, after: str = "") -> dict[str, Any]:
        """The count, the sum, and a page of the marks behind ``after``."""
        storage = self.ctx.storage
        page = await storage.list(prefix="mark/", start_after=f"mark/{after}", limit=1000)
        return {
            "count": await storage.get("count", 0),
            "total": await storage.get("total", 0),
            "marks": {key.removeprefix("mark/"): value for key, value in page.items()},
        }


class Register(StatefulActor):
    """One value, for the linearizability checker."""

    async def read(self) -> int:
        value: int = await self.ctx.storage.get("value", 0)
        return value

    async def write(self, value: int) -> None:
        await self.ctx.storage.put("value", value)

    async def swap(self, old: int, new: int) -> bool:
        if await self.read() != old:
            return False
        await self.ctx.storage.put("value", new)
        return True
