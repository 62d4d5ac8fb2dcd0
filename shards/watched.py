"""Runs a coroutine and tells when a step of it holds the worker's loop, as turns do for their own."""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Generator
from time import monotonic
from types import coroutine
from typing import Any, TypeVar

from actord.shards.blocking import BLOCKING_SECONDS

log = logging.getLogger("actord.door")

T = TypeVar("T")

_told: set[str] = set()


@coroutine
def watched(body: Coroutine[Any, Any, T], label: str) -> Generator[Any, Any, T]:
    """Await ``body``; a step that takes long is told once for each label."""
    step, argument = body.send, None
    while True:
        began = monotonic()
        try:
            yielded = step(argument)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            took = monotonic() - began
            if took > BLOCKING_SECONDS and label not in _told:
                _told.add(label)
                log.warning(
                    "%s held its worker for %.2f s without an await, and nothing else ran meanwhile: move what blocks "
                    "into a thread, as in `await asyncio.to_thread(...)`. Told once.",
                    label,
                    took,
                )
        try:
            argument = yield yielded
            step = body.send
        except BaseException as thrown:
            step, argument = body.throw, thrown
