"""A counter that everybody on the page sees move, and that no crash sets back.

Serve it with

    actord serve examples/counter/counter.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from actord import Env, Request, Response, StatefulActor
from msgspec import Meta

PAGE = Path(__file__).with_name("page.html").read_text()


class Counter(StatefulActor):
    """Each event says the whole state, so that the newest is all that a page has to know."""

    events_kept = 1

    async def add(self, amount: Annotated[int, Meta(ge=-1000, le=1000)] = 1) -> int:
        """The new total. Pages see it when it is durable, this one too."""
        total: int = await self.ctx.storage.get("total", 0) + amount
        await self.ctx.storage.put("total", total)
        self.ctx.emit("total", total)
        return total


async def fetch(request: Request, env: Env) -> Response:
    """The page, which calls the actor by itself.

    GET /
    """
    if request.method == "GET" and request.path == "/":
        return Response(PAGE, media_type="text/html")
    return Response.text("not found", status=404)
