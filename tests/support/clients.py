"""Both clients behind one form: a test is written once, as a function of a client, and runs with either."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from actord.client import AsyncClient, Client

KINDS = ("sync", "async")


class Driver:
    """``do(lambda client: client.actor("T", "n").method())`` gives the result with either client."""

    def __init__(self, kind: str, url: str, **options: Any) -> None:
        self._loop = asyncio.new_event_loop() if kind == "async" else None
        self.client: Any = AsyncClient(url, **options) if self._loop else Client(url, **options)

    def do(self, use: Callable[[Any], Any]) -> Any:
        made = use(self.client)
        return self._loop.run_until_complete(made) if self._loop and inspect.isawaitable(made) else made

    def idle(self) -> None:
        """Let the event loop, if there is one, see what has become of its connections."""
        for _ in range(5):
            self.do(lambda _: asyncio.sleep(0) if self._loop else None)

    def close(self) -> None:
        self.do(lambda client: client.close())
        if self._loop:
            self._loop.close()
