"""A price that moves once a second, by the actor's own alarm, on every page that looks at it.

Serve it with

    actord serve examples/ticker/ticker.py
"""

from __future__ import annotations

import random
import time
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from actord import AlarmInfo, Env, Request, Response, StatefulActor

PAGE = Path(__file__).with_name("page.html").read_text()


class Ticker(StatefulActor):
    """One symbol. It moves while somebody watches, and rests when nobody has for a while.

    The alarm is stored: a restart in between changes nothing. The last minute of prices is kept as events, so that a
    page that is opened has its chart at once.
    """

    events_kept = 60
    seconds_between: ClassVar[float] = 1.0
    seconds_watched: ClassVar[float] = 90.0

    async def watch(self) -> None:
        """A page says so when it is opened, and again from time to time."""
        await self.ctx.storage.put("until", time.time() + self.seconds_watched)
        if await self.ctx.storage.get_alarm() is None:
            self.ctx.set_alarm(timedelta(0))

    async def alarm(self, info: AlarmInfo) -> None:
        storage = self.ctx.storage
        if time.time() > await storage.get("until", 0):
            return
        cents: int = await storage.get("cents", 10_000)
        cents = max(100, cents + random.randint(-120, 125))
        await storage.put("cents", cents)
        self.ctx.emit("price", {"cents": cents, "at": int(time.time() * 1000)})
        self.ctx.set_alarm(timedelta(seconds=self.seconds_between))


async def fetch(request: Request, env: Env) -> Response:
    """The page, which calls the actor by itself.

    GET /
    """
    if request.method == "GET" and request.path == "/":
        return Response(PAGE, media_type="text/html")
    return Response.text("not found", status=404)
