"""The program of the power cuts over messages: money that moves, with a mark at both ends."""

from __future__ import annotations

from actord import StatefulActor


class Account(StatefulActor):
    async def open(self, amount: int) -> None:
        await self.ctx.storage.put("balance", amount)

    async def transfer(self, to: str, amount: int, mark: str) -> dict[str, str]:
        storage = self.ctx.storage
        await storage.put_many({"balance": await storage.get("balance") - amount, f"out/{mark}": [to, amount]})
        self.env.send(Account, to).receive(amount, mark)
        return {"sent": mark, "from": self.ctx.id}

    async def receive(self, amount: int, mark: str) -> None:
        storage = self.ctx.storage
        times = await storage.get(f"in/{mark}", 0)
        await storage.put_many({"balance": await storage.get("balance") + amount, f"in/{mark}": times + 1})


class Box(StatefulActor):
    """Refuses everything while it is shut."""

    send_retries = 0

    async def shut(self, yes: bool) -> None:
        await self.ctx.storage.put("shut", yes)

    async def give(self, to: str, *values: int) -> None:
        for value in values:
            self.env.send(Box, to).take(value)

    async def give_later(self, to: str, value: int, delay: float) -> None:
        self.env.send(Box, to, delay=delay).take(value)

    async def take(self, value: int) -> None:
        if await self.ctx.storage.get("shut"):
            raise RuntimeError("it is shut")
        await self.ctx.storage.put("held", [*await self.held(), value])

    async def held(self) -> list[int]:
        held: list[int] = await self.ctx.storage.get("held", [])
        return held
