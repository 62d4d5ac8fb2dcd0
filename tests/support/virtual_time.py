"""An event loop whose clock moves only when nothing is left to run: waits cost nothing and order is exact.

When nothing can ever happen again, it raises ``Deadlock`` instead of waiting for ever: a lost reply shows at once.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any

import pytest

# Every module of the core that reads the clock by this name.
CLOCK_READERS = (
    "meter",
    "committer",
    "asgi",
    "outflow",
    "outbound",
    "sql",
    "turns",
    "slices",
    "call",
    "dispatch",
    "intake",
    "outbound",
    "door",
    "link",
    "alarms",
    "events",
    "event_streams",
    "socket_events",
    "door_socket",
    "direct",
)


class Deadlock(AssertionError):
    """Everybody waits, no timer is set."""


class _Selector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        if events or timeout == 0:
            return events
        if timeout is None:
            raise Deadlock("everybody waits and no timer is set")
        self.loop.advance(timeout)
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        selector = _Selector()
        selector.loop = self
        self._now = 1000.0
        super().__init__(selector)

    def time(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Move the clock by hand: what a piece of code that blocks for so long would do."""
        self._now += seconds


def run(main: Coroutine[Any, Any, Any], patch: pytest.MonkeyPatch) -> Any:
    """``asyncio.run`` in virtual time, the core's clock included."""
    from importlib import import_module

    loop = VirtualLoop()
    for name in CLOCK_READERS:
        module = import_module(f"actord.shards.{name}")
        if hasattr(module, "monotonic"):
            patch.setattr(module, "monotonic", loop.time)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main)


async def steps(count: int = 30) -> None:
    """Let everything run that can run now; time stands still."""
    for _ in range(count):
        await asyncio.sleep(0)
