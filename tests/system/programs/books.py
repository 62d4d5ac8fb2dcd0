"""The ledger of the whole-server fault runs: a turn writes keys, a row of SQL and the alarm; the alarm writes too.

What holds at every commit, and so in whatever a fault leaves behind (``tests/history/offline.py`` checks it):

* ``count`` marks, numbered 1 to ``count``, whose amounts make ``total``; the rows of SQL say the same;
* the newest events are those of the last deposits, numbered as they are;
* without an alarm every deposit is swept (``swept == count``): an alarm that is lost shows.
"""

from __future__ import annotations

import time
from typing import Any

from actord import StatefulActor

SWEEP_AFTER_SECONDS = 0.02


class Ledger(StatefulActor):
    events_kept = 20

    async def deposit(self, mark: str, amount: int) -> dict[str, Any]:
        storage = self.ctx.storage
        count = await storage.get("count", 0) + 1
        total = await storage.get("total", 0) + amount
        await storage.put(f"mark/{mark}", [count, amount])
        storage.sql.exec("CREATE TABLE IF NOT EXISTS deposit (mark TEXT PRIMARY KEY, number UNIQUE, amount)")
        storage.sql.exec("INSERT INTO deposit VALUES (?, ?, ?)", mark, count, amount)
        await storage.put_many({"count": count, "total": total})
        if await storage.get_alarm() is None:
            storage.set_alarm(time.time() + SWEEP_AFTER_SECONDS)
        self.ctx.emit("deposit", [mark, amount])
        return {"name": self.ctx.id, "mark": mark, "number": count, "total": total}

    async def alarm(self, info: Any) -> None:
        storage = self.ctx.storage
        await storage.put("swept", await storage.get("count"))

    async def statement(self, after: str = "") -> dict[str, Any]:
        """The count, the sum, how far the alarm has swept, and a page of the marks behind ``after``."""
        storage = self.ctx.storage
        page = await storage.list(prefix="mark/", start_after=f"mark/{after}", limit=1000)
        return {
            "name": self.ctx.id,
            "count": await storage.get("count", 0),
            "total": await storage.get("total", 0),
            "swept": await storage.get("swept", 0),
            "marks": {key.removeprefix("mark/"): value for key, value in page.items()},
        }

    async def fill(self, number: int, size: int) -> int:
        """Bytes for the log, so that it grows."""
        await self.ctx.storage.put("fill", number.to_bytes(8, "little") * (size // 8))
        return number


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
