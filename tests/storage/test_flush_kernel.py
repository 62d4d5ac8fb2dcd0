"""The kernel's asynchronous I/O: what was in flight when it fails, and syncs that are overtaken in the loop."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from actord.errors import StoreBroken
from actord.storage.flush import KernelFlusher
from actord.storage.sqlite import SqliteStore

from tests.support.harness import open_sqlite


def test_a_completion_that_can_not_be_read_fails_every_sync_in_flight(tmp_path: Path) -> None:
    async def run() -> BaseException | None:
        loop = asyncio.get_running_loop()
        flusher = opened(loop)
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


def opened(loop: asyncio.AbstractEventLoop) -> KernelFlusher:
    try:
        return KernelFlusher(loop)
    except OSError as error:
        pytest.skip(f"no asynchronous I/O here: {error}")


def completion(flusher: KernelFlusher, fd: int, block: int, result: int) -> None:
    """Let the kernel say that a sync has ended, and how. ``block``: the address of what asked for it."""
    os.eventfd_write(flusher._eventfd, 1)

    def events(number: int, context: Any, least: int, most: int, found: ctypes.Array[ctypes.c_char], wait: None) -> int:
        struct.pack_into("<QQqq", found, 0, fd, block, result, 0)
        return 1

    syscall, flusher._syscall = flusher._syscall, events
    flusher._reap()
    flusher._syscall = syscall


def submit(flusher: KernelFlusher, store: SqliteStore, heard: list[Any]) -> int:
    """Ask for a sync that the kernel takes and does not begin; the address of what asks for it."""
    flusher._syscall, real = (lambda *_: 1), flusher._syscall
    flusher.submit(store, heard.append)
    flusher._syscall = real
    return ctypes.addressof(flusher._blocks[store.sync_fd][0])


def test_a_sync_that_waits_for_a_core_is_overtaken_and_its_own_end_acknowledges_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        flusher = opened(asyncio.get_running_loop())
        with open_sqlite(tmp_path) as store:
            synced, sync = [], store.sync
            store.sync = lambda: synced.append(sync())  # type: ignore[method-assign,func-returns-value]
            heard: list[Any] = []
            first = submit(flusher, store, heard)
            assert heard == []
            flusher.hurry()
            assert (heard, len(synced)) == ([None], 1)
            second = submit(flusher, store, heard)  # the next batch's
            completion(flusher, store.sync_fd, first, 0)
            assert heard == [None], "that was the sync before it"
            completion(flusher, store.sync_fd, second, 0)
            assert heard == [None, None]
        flusher.close()

    asyncio.run(run())


def test_an_overtaken_sync_that_fails_after_all_breaks_its_store(tmp_path: Path) -> None:
    async def run() -> None:
        flusher = opened(asyncio.get_running_loop())
        with contextlib.suppress(StoreBroken), open_sqlite(tmp_path) as store:
            heard: list[Any] = []
            overtaken = submit(flusher, store, heard)
            flusher.hurry()
            completion(flusher, store.sync_fd, overtaken, -errno.EIO)
            assert heard == [None], "it was durable, and is"
            with pytest.raises(StoreBroken):
                store.sync()
        flusher.close()

    asyncio.run(run())
