"""Actors that call each other; where one has to wait for the test, it waits on named pipes."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from actord import ActordError, StatefulActor


class Node(StatefulActor):
    async def add(self, n: int = 1) -> int:
        total: int = await self.ctx.storage.get("n", 0) + n
        await self.ctx.storage.put("n", total)
        return total

    async def total(self) -> int:
        return await self.ctx.storage.get("n", 0)  # type: ignore[no-any-return]

    async def pid(self) -> int:
        return os.getpid()

    async def chain(self, names: list[str]) -> int:
        if not names:
            return await self.add()
        return await self.env.get(Node, names[0]).chain(names[1:])

    async def many(self, names: list[str]) -> int:
        return sum(await asyncio.gather(*(self.env.get(Node, name).add() for name in names)))

    async def held(self, pipe: str) -> str:
        """Say that it has begun; end when it is told to."""
        await asyncio.to_thread(_hold, pipe)
        return self.ctx.id

    async def holds(self, other: str, pipe: str) -> str:
        return await self.env.get(Node, other).held(pipe)

    async def outcome(self, other: str, pipe: str) -> list[Any]:
        """What the caller of one that dies is told."""
        try:
            return [await self.env.get(Node, other).held(pipe)]
        except ActordError as error:
            return [type(error).__name__, error.applied]

    async def meet(self, pipe: str, other: str) -> str:
        """Say that it has begun; when it is told to, call."""
        await asyncio.to_thread(_hold, pipe)
        try:
            await self.env.get(Node, other).add()
        except ActordError as error:
            return f"{type(error).__name__} {error.applied} {error.detail}"
        return "ok"


def _hold(pipe: str) -> None:
    with open(pipe, "w"):  # returns when the test has opened its end
        pass
    with open(pipe + ".go") as go:
        go.read()  # until the test closes its end
