"""The operator's requests to one worker, as they come over the control line: a name, parameters, an answer.

A request is ``{"do": "alarms.list", ...}``. Its handler is a coroutine function that takes the whole request and
returns plain JSON. What it raises of ``ActordError`` is answered as a problem; anything else is a bug, logged and
answered as one. Handlers run beside the turns: they touch an actor only by a turn of their own.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec
from actord.errors import ActordError, BadRequest, from_problem
from actord.shards.call import NO_DEADLINE, Call, Lifecycle, Sink
from actord.shards.control import Message

if TYPE_CHECKING:
    from actord.shards.activation import Activation
    from actord.shards.turns import TurnRunner

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


async def run_turn(runner: TurnRunner, act: Activation, kind: Lifecycle) -> Any:
    """What ``kind`` returns as a turn of the actor, durable; an ``ActordError`` of it is raised here."""
    reply = ReplyOfTurn()
    runner.admit(Call(reply, 0, bytearray(1), act, kind, (), {}, 0, NO_DEADLINE, monotonic()))
    call = await reply.future
    value = msgspec.json.decode(call.body)
    if call.status >= 400:
        raise from_problem(value)
    return value


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
