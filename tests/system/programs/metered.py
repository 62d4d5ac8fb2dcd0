"""The program of the tests of what a server says of itself: one method for each thing that is counted."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any

from actord import ActorError, AlarmInfo, Request, Response, StatefulActor

log = logging.getLogger("metered")


class Metered(StatefulActor):
    async def add(self, amount: int = 1) -> int:
        total: int = await self.ctx.storage.get("sum", 0) + amount
        await self.ctx.storage.put("sum", total)
        return total

    async def total(self) -> int:
        return await self.ctx.storage.get("sum", 0)

    async def refuse(self) -> None:
        raise ActorError("no", status=409)

    async def fail(self) -> None:
        raise RuntimeError("a fault")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def arm(self) -> None:
        self.ctx.set_alarm(timedelta(milliseconds=1))

    async def alarm(self, info: AlarmInfo) -> None:
        await self.ctx.storage.put("rang", True)

    async def rang(self) -> bool:
        return await self.ctx.storage.get("rang", False)

    async def say(self, words: str) -> None:
        log.warning("%s", words)

    async def pass_on(self, name: str, words: str) -> None:
        log.warning("passing on")
        await self.env.get(Metered, name).say(words)

    async def send_on(self, name: str) -> None:
        self.env.send(Metered, name).add(1)


async def fetch(request: Request, env: Any) -> Response:
    """GET /say/{name}"""
    if not request.path.startswith("/say/"):
        return Response("no", status=404)
    name = request.path.rpartition("/")[2]
    log.warning("at the door")
    await env.get(Metered, name).say("from the door")
    return Response("said")
