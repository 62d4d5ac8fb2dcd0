"""A worker's process and its supervisor: it serves, or it waits for its time to serve.

1. A standby has loaded the program and waits for ``serve`` while its predecessor has the shards.
2. A worker that was told to ``leave`` says when its shards are free, and waits in the same way for the news of its
   successor: ``serve`` again when that one did not get ready, or the end of its line.
3. What keeps it from serving (the program, the store) are its last words, and its exit code.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any, NoReturn, Protocol

from actord.errors import ActordError, StoreBroken
from actord.shards.admin import Admin
from actord.shards.control import ControlChannel, Message
from actord.shards.registry import ProgramError

log = logging.getLogger("actord.worker")

EXIT_CONFIG = 78
EXIT_UNAVAILABLE = 69
PARKED = -1  # no exit code: the process waits for the news of its successor
# Time for the last words of a broken worker to reach the sockets.
LAST_WORDS_SECONDS = 0.1


class Worker(Protocol):
    """What serves. ``done`` gets the exit code, or PARKED."""

    admin: Admin
    done: asyncio.Future[int]
    on_crowded: Callable[[], None]
    flushing: asyncio.Task[None] | None  # of what it has to tell others, which goes on when it is parked

    async def start(self) -> None: ...

    def leave(self, limit: float, *, park: bool) -> None: ...

    def load(self) -> Message: ...

    def hold(self, held: bool) -> None: ...

    def explain(self, signal: int, frame: FrameType | None) -> None: ...


class Process:
    """See the promises above."""

    def __init__(
        self, control_socket: socket.socket, compose: Callable[[], Worker], described: Message, *, standby: bool
    ) -> None:
        """``compose`` opens the shards; ``described`` is what is in the program."""
        self._socket = control_socket
        self._compose = compose
        self._described = described
        self._standby = standby
        self._worker: Worker | None = None
        self._go = asyncio.Event()
        self._flushing: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._control = ControlChannel(self._on_message, on_close=lambda: os._exit(0))

    async def run(self) -> NoReturn:
        await self._control.attach(self._socket)
        signal.signal(signal.SIGUSR1, self._explain)
        if self._standby:
            gc.collect()  # now, and not when calls wait for it
            gc.freeze()
            self._control.send({"standby": True, "program": self._described})
            await self._go.wait()
        while True:
            self._go.clear()
            code = await self._serve()
            if code != PARKED:
                log.info("worker stops", extra={"code": code})
                self._exit(code)
            self._flushing = self._worker.flushing if self._worker is not None else None
            self._worker = None
            self._control.send({"left": True})
            await asyncio.sleep(0)  # the successor does not wait for what follows
            gc.unfreeze()
            gc.collect()
            await self._go.wait()

    async def _serve(self) -> int:
        try:
            self._worker = worker = self._compose()
            worker.on_crowded = lambda: self._control.send({"crowded": True})
            starting = asyncio.get_running_loop().create_task(worker.start())
            waited: tuple[asyncio.Future[Any], ...] = (starting, worker.done)
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if worker.done.done():  # it was told to end meanwhile
                return worker.done.result()
            await starting
        except ProgramError as error:
            await self._fatal(str(error), EXIT_CONFIG, error.__cause__)
        except ActordError as error:
            await self._fatal(error.detail, EXIT_UNAVAILABLE if isinstance(error, StoreBroken) else EXIT_CONFIG)
        # What was loaded lives for ever: keep it out of collections, and make full ones rare.
        if not self._standby:
            gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 50, 1_000)
        self._control.send({"ready": True, "pid": os.getpid(), "program": self._described})
        return await worker.done

    def _on_message(self, message: Message) -> None:
        worker = self._worker
        if "ping" in message:
            self._control.send({"pong": message["ping"], **(worker.load() if worker is not None else {})})
        elif "hold" in message:
            if worker is not None:
                worker.hold(message["hold"])
        elif "serve" in message:
            self._go.set()
        elif "leave" in message or "drain" in message:
            park = "leave" in message
            if worker is not None:
                worker.leave(message["leave" if park else "drain"], park=park)
            elif not park:
                self._spawn(self._end())
        elif "admin" in message:
            self._spawn(self._answer(message))

    def _spawn(self, run: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(run)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _end(self) -> None:
        """It waited, and is not needed."""
        if self._flushing is not None:
            await asyncio.wait({self._flushing})
        self._exit(0)

    async def _answer(self, message: Message) -> None:
        worker = self._worker
        assert worker is not None  # the supervisor asks those that are ready
        self._control.send({"answer": await worker.admin.answer(message["admin"]), "id": message["id"]})

    def _explain(self, number: int, frame: FrameType | None) -> None:
        if self._worker is not None:
            self._worker.explain(number, frame)

    async def _fatal(self, message: str, code: int, cause: BaseException | None = None) -> NoReturn:
        if cause is not None:
            log.error("%s", message, exc_info=cause)
        self._control.send({"fatal": {"message": message, "exit": code}})
        await asyncio.sleep(LAST_WORDS_SECONDS)
        self._exit(code)

    def _exit(self, code: int) -> NoReturn:
        logging.shutdown()
        os._exit(code)  # user code may have left threads and tasks behind; everything of ours is closed
