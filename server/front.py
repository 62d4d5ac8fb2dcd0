"""The front process: owns every client connection, parses, routes and frames; opens no database, runs no user code.

``python -m actord.server.front FD``: FD is the control line to the supervisor (see ``shards/control.py``).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import msgspec
import uvloop
from actord import logs
from actord.errors import BadRequest
from actord.server.httpserver import HttpServer
from actord.server.monitor import MonitorConnection, figures
from actord.server.router import Router, Worker
from actord.server.scheduling import Scheduling
from actord.server.slotmap import SlotMap
from actord.settings import Server, Settings
from actord.shards.control import ControlChannel, Message, boot_child

SWEEP_SECONDS = 1.0
# Between its steps, of which there may be a hundred: a worker on the front's core need not wait for all of them.
SWEEP_PAUSE = 0.005


class Front:
    """The composition of one front process, and its conversation with the supervisor."""

    def __init__(self, boot: Message) -> None:
        self._settings = msgspec.convert(boot["settings"], Settings)
        self._listen: list[int] = boot["listen"]
        self._monitors: list[int] = boot.get("monitors", [])
        self._version: str = boot["version"]
        index: int = boot["index"]
        self._name = f"front-{index}"
        logs.configure(self._settings.log.level, self._settings.log.format, process=self._name)
        runtime_dir = Path(boot["runtime_dir"])
        self._router = Router(
            [Worker(link["path"], tuple(link["shards"])) for link in boot["links"]],
            boot["shards"],
            caller=self._name,
            begun_path=lambda worker: str(runtime_dir / f"begun-front{index}-worker{worker}"),
            on_change=self._on_change,
        )
        self._scheduling = Scheduling(self._router.links)
        self._control = ControlChannel(self._on_message, lambda: os._exit(0))
        slots = SlotMap(boot["links"], boot["shards"], boot.get("epoch", ""), boot.get("ticket", ""))
        self._server = HttpServer(self._settings, self._router, slots, version=self._version)
        self._server.scrape = self._scrape
        self._wishes: dict[int, Callable[[Message | None], None]] = {}
        self._wished = 0
        if boot.get("access") is not None:
            self._server.ask_for_tokens(boot["access"])
        self._patient: bool = boot["patient"]
        self._started = asyncio.Event()
        self._listening = False
        self._reported = False
        self._stop = asyncio.Event()
        self._drain: asyncio.Task[None] | None = None

    async def run(self, control: socket.socket) -> None:
        """Serve until drained."""
        await self._control.attach(control)
        self._router.connect()
        if self._patient:  # a service manager keeps the sockets: who comes now may wait in their queues
            await self._started.wait()
        if not self._stop.is_set():
            await self._listen_now()
        sweeper = asyncio.create_task(self._sweep())
        await self._stop.wait()
        sweeper.cancel()
        self._router.close()

    async def _listen_now(self) -> None:
        await self._server.listen([socket.socket(fileno=fd) for fd in self._listen])
        await self._server.listen([socket.socket(fileno=fd) for fd in self._monitors], MonitorConnection)
        self._server.lag.start()
        self._listening = True
        self._report_ready()

    async def _sweep(self) -> None:
        due = monotonic()
        while True:
            due = max(due + SWEEP_SECONDS, monotonic())
            await asyncio.sleep(due - monotonic())
            self._scheduling.look()
            for _ in self._server.sweep():
                await asyncio.sleep(SWEEP_PAUSE)

    def _on_change(self) -> None:
        if self._router.started:
            self._started.set()
        self._report_ready()

    def _report_ready(self) -> None:
        if self._listening and self._router.started and not self._reported:
            self._reported = True
            self._control.send({"ready": True, "pid": os.getpid()})

    def _on_message(self, message: Message) -> None:
        if "ping" in message:
            self._control.send({"pong": message["ping"]})
        elif "admin" in message:
            self._control.send({"answer": self._answer(message["admin"]), "id": message["id"]})
        elif "granted" in message:
            self._wishes.pop(message["id"])(message["granted"])
        elif "access" in message:
            self._server.ask_for_tokens(message["access"])
        elif "hold" in message:
            self._router.hold(message["hold"])
        elif "tls" in message:
            self._server.renew_tls(msgspec.convert(message["tls"], Server))
        elif "drain" in message:
            if self._drain is None:
                self._drain = asyncio.create_task(self._drained(message["drain"]))
            else:
                self._stop.set()
                self._started.set()

    def _answer(self, request: Message) -> Message:
        if request.get("do") == "metrics":
            return {"value": list(figures(self._server))}
        if request.get("do") == "settings":
            self._take(msgspec.convert(request["settings"], Settings))
            return {"value": None}
        return {"error": BadRequest(f"A front can't do {request.get('do')!r}.").to_problem()}

    def _scrape(self, accept: str, told: Callable[[Message | None], None]) -> None:
        """Have the supervisor write the metrics of the whole server."""
        self._wished += 1
        self._wishes[self._wished] = told
        self._control.send({"wish": {"accept": accept}, "id": self._wished})

    def _take(self, settings: Settings) -> None:
        logs.configure(settings.log.level, settings.log.format, process=self._name)
        self._server.take(settings)

    async def _drained(self, seconds: float) -> None:
        self._server.start_draining()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._server.drained()
        self._stop.set()
        self._started.set()  # nobody is waited for any more


def main() -> None:
    # A Ctrl-C reaches the whole process group; only the supervisor decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    control, boot = boot_child(int(sys.argv[1]))

    async def serve() -> None:
        front = Front(boot)
        # What exists now lives as long as the process: collections need not walk it.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 50, 100)
        await front.run(control)

    uvloop.run(serve())


if __name__ == "__main__":
    main()
