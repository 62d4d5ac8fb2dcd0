"""Virtual time with an order that the seed decides, and the clocks of the worker's core set to it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from actord.shards import alarm as wall

from tests.support.virtual_time import CLOCK_READERS, VirtualLoop

WALL_OFFSET = 1_700_000_000.0


class SeededLoop(VirtualLoop):
    """What is ready runs in an order that the dice decide; asyncio promises one, and the core must not need it."""

    def __init__(self, dice: random.Random, start: float) -> None:
        super().__init__()
        self._now = start
        self._dice = dice
        self._ready: Any

    def _run_once(self) -> None:
        ready = self._ready
        if len(ready) > 1 and self._dice.random() < 0.5:
            shuffled = list(ready)
            self._dice.shuffle(shuffled)
            ready.clear()
            ready.extend(shuffled)
        super()._run_once()  # type: ignore[misc]


@contextmanager
def virtual_clocks() -> Iterator[None]:
    """Every clock that the core reads is the running loop's; what the core logs about its failures is no news."""

    def now() -> float:
        return asyncio.get_running_loop().time()

    def time_ns() -> int:
        return round((now() + WALL_OFFSET) * 1e9)

    changed: list[tuple[Any, str, Callable[..., Any]]] = [(wall, "time_ns", time_ns)]
    for name in CLOCK_READERS:
        module = import_module(f"actord.shards.{name}")
        if hasattr(module, "monotonic"):
            changed.append((module, "monotonic", now))
    loggers = [logging.getLogger(name) for name in ("actord", "actord.turns", "actord.alarms", "asyncio")]
    levels = [logger.level for logger in loggers]
    before = [(module, name, getattr(module, name)) for module, name, _ in changed]
    for module, name, value in changed:
        setattr(module, name, value)
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for module, name, value in before:
            setattr(module, name, value)
