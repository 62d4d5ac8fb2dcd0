"""The ledger of the fault tests, with each deposit in three places: a row of SQL, two keys, and the alarm's time."""

from __future__ import annotations

from typing import Any

from actord import StatefulActor

FIRST_ALARM = 4_000_000_000


class Ledger(StatefulActor):
    async def deposit(self, mark: str, amount: int) -> dict[str, Any]:
        storage = self.ctx.storage
        count = await storage.get("count", 0) + 1
        total = await storage.get("total", 0) + amount
        sql = storage.sql
        sql.exec("CREATE TABLE IF NOT EXISTS deposit (mark TEXT PRIMARY KEY, number UNIQUE, amount, pad)")
        sql.exec("INSERT INTO deposit VALUES (?, ?, ?, zeroblob(300))", mark, count, amount)
        if count % 10 == 0:  # the same rows in a new database
            rows = list(sql.exec("SELECT mark, number, amount FROM deposit").raw())
            await storage.delete_all()
            sql.exec("CREATE TABLE deposit (mark TEXT PRIMARY KEY, number UNIQUE, amount, pad)")
            for row in rows:
                sql.exec("INSERT INTO deposit VALUES (?, ?, ?, zeroblob(300))", *row)
        await storage.put_many({"count": count, "total": total})
        storage.set_alarm(FIRST_ALARM + count)
        return {"mark": mark, "number": count, "total": total}

    async def statement(self) -> dict[str, Any]:
        storage = self.ctx.storage
        rows = storage.sql.exec("SELECT mark, number, amount FROM deposit ORDER BY number")
        alarm = await storage.get_alarm()
        return {
            "count": await storage.get("count", 0),
            "total": await storage.get("total", 0),
            "rows": rows.to_list(),
            "alarm": alarm and alarm.timestamp(),
            "size": storage.sql.database_size,
        }

    async def fail(self, mark: str) -> None:
        await self.deposit(mark, 1_000_000)
        raise ValueError("after the writes")

    async def query(self, text: str, *bindings: Any) -> list[Any]:
        return self.ctx.storage.sql.exec(text, *bindings).to_list()

    async def alarm(self, info: Any) -> None:
        raise AssertionError("far in the future")
