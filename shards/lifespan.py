"""The lifespan of an ASGI application: one startup before the worker is ready, one shutdown while it drains.

1. Nothing of the application is called before its startup is complete, but the lifespan itself.
2. ``lifespan.startup.failed``, a startup that raises after it has taken the event, or one over its time: the worker is
   not served, and its message says why.
3. An application that knows no lifespan (it raises or returns before it takes the event) is served without one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from actord.shards.problem import log_fault
from actord.shards.registry import ProgramError

log = logging.getLogger("actord.lifespan")

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

VERSIONS = {"version": "3.0", "spec_version": "2.4"}


class Lifespan:
    """``state``: what the application keeps for its requests; None when it has no lifespan."""

    def __init__(self, app: Application) -> None:
        self._app = app
        self._events: asyncio.Queue[Message] = asyncio.Queue()
        self._answers: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._taken = False
        self.state: dict[str, Any] | None = None

    async def startup(self, limit: float) -> None:
        """Raises ``ProgramError`` when the application does not start, within ``limit`` seconds."""
        state: dict[str, Any] = {}
        scope = {"type": "lifespan", "asgi": VERSIONS | {"spec_version": "2.0"}, "state": state}
        self._task = asyncio.get_running_loop().create_task(self._run(scope))
        await self._events.put({"type": "lifespan.startup"})
        answer = await self._answer(limit)
        if answer is None:
            raise ProgramError(f"`app` did not complete its startup within {limit:g} s (`runtime.init_timeout`).")
        if answer["type"] == "lifespan.startup.complete":
            self.state = state
        elif answer["type"] == "lifespan.startup.failed":
            told = str(answer.get("message") or "no message").strip()
            log.error("the startup of `app` failed: %s", told)
            raise ProgramError(f"The startup of `app` failed: {told.splitlines()[-1]}")
        elif self._taken and "error" in answer:
            error = answer["error"]
            raise ProgramError(f"The startup of `app` raised {type(error).__name__}: {error}") from error
        else:
            self._task = None
            log.debug("`app` has no lifespan")

    async def shutdown(self, limit: float) -> None:
        """Tell the application that it ends; wait for it, for ``limit`` seconds at most."""
        if self.state is None or self._task is None:
            return
        await self._events.put({"type": "lifespan.shutdown"})
        answer = await self._answer(limit)
        if answer is None:
            log.warning("`app` did not complete its shutdown within %.1f s", limit)
        elif answer["type"] == "lifespan.shutdown.failed":
            log.error("the shutdown of `app` failed: %s", answer.get("message", ""))
        elif "error" in answer:
            log_fault(log, "the shutdown of `app` failed", answer["error"])

    async def _answer(self, limit: float) -> Message | None:
        with suppress(TimeoutError):
            return await asyncio.wait_for(self._answers.get(), limit)
        return None

    async def _run(self, scope: MutableMapping[str, Any]) -> None:
        try:
            await self._app(scope, self._receive, self._send)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            await self._answers.put({"type": "", "error": error})
        else:
            await self._answers.put({"type": ""})

    async def _receive(self) -> Message:
        message = await self._events.get()
        self._taken = True
        return message

    async def _send(self, message: Message) -> None:
        part = message["type"]
        if part not in (
            "lifespan.startup.complete",
            "lifespan.startup.failed",
            "lifespan.shutdown.complete",
            "lifespan.shutdown.failed",
        ):
            raise RuntimeError(f"a lifespan has no message {part!r}")
        await self._answers.put(message)
