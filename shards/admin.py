"""The operator's requests to one worker, as they come over the control line: a name, parameters, an answer.

A request is ``{"do": "alarms.list", ...}``. Its handler is a coroutine function that takes the whole request and
returns plain JSON. What it raises of ``ActordError`` is answered as a problem; anything else is a bug, logged and
answered as one. Handlers run beside the turns: they touch an actor only by a turn of their own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from actord.errors import ActordError, BadRequest
from actord.shards.call import Call, Sink
from actord.shards.control import Message

log = logging.getLogger("actord.admin")

Handler = Callable[[Message], Awaitable[Any]]


class ReplyOfTurn(Sink):
    """Where the reply of a turn goes that an operator asked for."""

    __slots__ = ("future",)

    def __init__(self) -> None:
        self.future: asyncio.Future[Call] = asyncio.get_running_loop().create_future()

    def put(self, call: Call) -> None:
        if not self.future.done():
            self.future.set_result(call)


class Admin:
    """``handlers`` by the name of what they do."""

    def __init__(self, handlers: dict[str, Handler]) -> None:
        self._handlers = handlers

    async def answer(self, request: Message) -> Message:
        """``{"value": ...}`` or ``{"error": problem}``."""
        try:
            handler = self._handlers.get(str(request.get("do")))
            if handler is None:
                known = ", ".join(sorted(self._handlers))
                raise BadRequest(f"A worker can't do {request.get('do')!r}. It can: {known}.")
            return {"value": await handler(request)}
        except ActordError as error:
            return {"error": error.to_problem()}
        except Exception as error:
            log.exception("the request %r failed", request.get("do"))
            return {"error": ActordError(f"{type(error).__name__}: {error}").to_problem()}
