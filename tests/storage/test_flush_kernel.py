"""When the kernel's asynchronous I/O itself fails, the outcome of what was in flight is unknown: nobody waits."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
from pathlib import Path

import pytest
from actord.errors import StoreBroken
from actord.storage.flush import KernelFlusher

from tests.support.harness import open_sqlite


def test_a_completion_that_can_not_be_read_fails_every_sync_in_flight(tmp_path: Path) -> None:
    async def run() -> BaseException | None:
        loop = asyncio.get_running_loop()
        try:
            flusher = KernelFlusher(loop)
        except OSError as error:
            pytest.skip(f"no asynchronous I/O here: {error}")
        # A store that is broken says so again when it is closed.
        with contextlib.suppress(StoreBroken), open_sqlite(tmp_path) as store:
            done: asyncio.Future[BaseException | None] = loop.create_future()
            context = flusher._context
            flusher.submit(store, done.set_result)
            flusher._context = ctypes.c_ulong(1)  # what a fork or stray user code can make of it
            outcome = await asyncio.wait_for(done, 10)
            flusher._context = context
            flusher.close()
        return outcome

    assert isinstance(asyncio.run(run()), StoreBroken)
