"""Actors that have something of everything that `actord inspect` and `actord sql` show."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from actord import StatefulActor


class Desk(StatefulActor):
    async def fill(self) -> None:
        """Values of many types, two SQL tables, an alarm, two events."""
        await self.ctx.storage.put_many(
            {
                "balance": 30,
                "opened": datetime(2026, 1, 2, tzinfo=UTC),
                "price": Decimal("9.90"),
                "tags": {"a"},
                "text": "line\n\x1b[31mred",
                "worst": float("nan"),
            }
        )
        sql = self.ctx.storage.sql
        sql.exec("CREATE TABLE entry (id INTEGER PRIMARY KEY, what TEXT)")
        sql.exec("CREATE TABLE spare (x)")
        sql.exec("INSERT INTO entry (what) VALUES ('one'), ('two'), ('three')")
        await self.ctx.set_alarm(datetime(2100, 1, 1, tzinfo=UTC))
        self.ctx.emit("filled", {"n": 1})
        self.ctx.emit("filled", {"n": 2})

    async def add(self, amount: int) -> int:
        """Counts in a field too, which memory alone holds."""
        self.seen = getattr(self, "seen", 0) + 1
        balance: int = await self.ctx.storage.get("balance", 0) + amount
        await self.ctx.storage.put("balance", balance)
        return balance

    async def memory(self) -> int:
        return getattr(self, "seen", 0)

    async def read(self, key: str) -> Any:
        return await self.ctx.storage.get(key)

    async def wait_for(self, name: str) -> None:
        """Waits for another desk, which waits for its gate."""
        await self.env.DESK.id_from_name(name).hold()

    async def hold(self) -> None:
        await gates.setdefault(self.ctx.id, asyncio.Event()).wait()

    async def send_later(self, name: str) -> None:
        await self.env.DESK.id_from_name(name).send(delay=3600).add(1)

    async def alarm(self, info: Any) -> None:
        pass


gates: dict[str, asyncio.Event] = {}


async def fetch(request: Any, env: Any) -> Any:
    """GET /open/NAME: lets a desk of this worker go on."""
    from actord import Response

    gates.setdefault(request.path.rpartition("/")[2], asyncio.Event()).set()
    return Response.text("open")
