"""Actors whose code does what no actor should, after a write that must then be there whole or not at all."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import threading
from pathlib import Path
from typing import Any

from actord import StatefulActor, timeout

KEPT: list[Any] = []


class Quit(BaseException):
    pass


class LateFault:
    def __del__(self) -> None:
        raise RuntimeError("in __del__")


class Hostile(StatefulActor):
    async def add(self, amount: int = 1) -> int:
        total: int = await self.ctx.storage.get("sum", 0) + amount
        await self.ctx.storage.put("sum", total)
        return total

    async def sum(self) -> int:
        total: int = await self.ctx.storage.get("sum", 0)
        return total

    async def echo(self, value: Any = None) -> Any:
        return value

    async def many(self, first: int, *rest: float) -> int:
        return 1 + len(rest)

    def pid(self) -> int:
        return os.getpid()

    async def big(self, size: int) -> str:
        return "x" * size

    @timeout(60)
    async def wait_for(self, started: str, go: str) -> str:
        """Says that it runs, and ends when the test opens the other fifo."""
        await self.add()
        fd = os.open(started, os.O_WRONLY)
        os.write(fd, b"x")
        os.close(fd)
        await asyncio.to_thread(Path(go).read_bytes)
        return "waited"

    async def exit(self, code: int = 0) -> None:
        await self.add()
        os._exit(code)

    async def fork(self) -> int:
        await self.add()
        return os.fork()

    async def fork_and_wait(self) -> int:
        await self.add()
        child = os.fork()
        await asyncio.sleep(0.05)
        await self.add()
        return child

    async def quit(self) -> None:
        await self.add()
        raise Quit("no Exception")

    async def interrupt(self) -> None:
        await self.add()
        raise KeyboardInterrupt

    async def system_exit(self) -> None:
        await self.add()
        sys.exit(3)

    async def generator_exit(self) -> None:
        await self.add()
        raise GeneratorExit

    @timeout(0.3)
    async def spin_politely(self) -> None:
        """Never awaits anything that takes time, and never ends."""
        await self.add()
        while True:  # noqa: ASYNC110
            await asyncio.sleep(0)

    @timeout(0.3)
    async def block(self, seconds: float) -> None:
        await self.add()
        threading.Event().wait(seconds)

    async def recurse(self, depth: int = 0) -> int:
        if not depth:
            await self.add()
        return await self.recurse(depth + 1)

    def deep_repr(self) -> str:
        nested: list[Any] = []
        for _ in range(200_000):
            nested = [nested]
        return repr(nested)

    async def deep_result(self) -> Any:
        nested: list[Any] = []
        for _ in range(200_000):
            nested = [nested]
        return nested

    async def allocate(self, size: int) -> int:
        await self.add()
        return len(bytearray(size))

    async def hoard(self, size: int) -> int:
        """Like ``allocate``, and keeps it, as a leak does."""
        await self.add()
        for _ in range(size >> 20):
            KEPT.append(bytearray(1 << 20))
        return len(KEPT)

    async def close_descriptors(self) -> None:
        await self.add()
        os.closerange(3, 1024)

    async def late_fault(self) -> None:
        await self.add()
        LateFault()

    async def thread_that_stays(self, seconds: float = 30) -> None:
        await self.add()
        threading.Thread(target=threading.Event().wait, args=(seconds,)).start()

    async def thread_that_writes(self, go: str) -> None:
        """Its thread writes to storage when the turn is long over."""
        await self.add()
        storage = self.ctx.storage

        def late() -> None:
            Path(go).read_bytes()
            try:
                storage.put("sum", 1_000_000).send(None)
            except BaseException as error:
                KEPT.append(type(error).__name__)
            else:
                KEPT.append("written")

        threading.Thread(target=late, daemon=True).start()

    def kept(self) -> list[Any]:
        return list(KEPT)

    async def task_that_writes(self) -> None:
        """Its task writes to storage when the turn is over."""
        await self.add()
        storage = self.ctx.storage

        async def late() -> None:
            await asyncio.sleep(0.02)
            try:
                await storage.put("sum", 1_000_000)
            except BaseException as error:
                KEPT.append(type(error).__name__)
            else:
                KEPT.append("written")

        KEPT.append(asyncio.get_running_loop().create_task(late()))
        del KEPT[-1]

    async def patch_asyncio(self) -> None:
        await self.add()
        asyncio.sleep = asyncio.wait_for = None  # type: ignore[assignment]
        asyncio.Future = asyncio.Task = dict  # type: ignore[assignment, misc]
        asyncio.get_running_loop = asyncio.current_task = lambda: None  # type: ignore[assignment]

    async def segfault(self) -> None:
        await self.add()
        ctypes.string_at(0)

    async def stop_the_loop(self) -> None:
        await self.add()
        asyncio.get_running_loop().stop()
