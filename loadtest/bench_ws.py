"""Messages through rooms of WebSockets: actord, where each has a durable number, beside FastAPI with state in memory.

``python -m actord.loadtest.bench_ws`` (or ``make bench-ws``). Two shapes: one room of 100 sockets, and 1,000 rooms of
two. Every socket keeps some messages under way and sends the next one when all of its room have come back; each message
is delivered to everybody in the room. Both systems run in turn in every round, and only ratios of one run count.
At the end the numbers that actord has stored are compared with what was delivered. Exit status: 0; 1 when numbers are
missing or doubled, or (with ``--strict``) a ratio is below 1.0; 69 when a system did not come up; 78 when the data
would be kept in memory.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import http.client
import json
import os
import shlex
import struct
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import cast

import uvloop
from actord.loadtest import machine, systems
from actord.loadtest.rounds import EX_CONFIG, EX_UNAVAILABLE
from rich.console import Console

PAYLOAD = b"x" * 32
FRAME = 2 + 10 + len(PAYLOAD)  # the head, a number of nine digits and a blank, the payload
WANTED = 1.0
SHAPES = {"one room of 100": (1, 100), "1,000 rooms of 2": (1_000, 2)}
PROGRAM = """
from actord import StatefulActor


class Room(StatefulActor):
    async def on_activate(self):
        self.seq = await self.ctx.storage.get("seq", 0)

    async def web_socket(self, ws, request):
        pass

    async def web_socket_message(self, ws, data):
        self.seq += 1
        await self.ctx.storage.put("seq", self.seq)
        self.ctx.broadcast(f"{self.seq:09d} {data}")

    async def number(self) -> int:
        return await self.ctx.storage.get("seq", 0)
"""


class Client(asyncio.Protocol):
    """One socket. It counts frames by their size, which is always the same, so that it costs next to nothing."""

    def __init__(self, load: Load, room: int, members: int, depth: int) -> None:
        self._load = load
        self._path = f"/actors/Room/room{room}"
        self._members = members
        self._depth = depth
        self._mask = os.urandom(4)
        masked = bytes(byte ^ self._mask[i % 4] for i, byte in enumerate(PAYLOAD))
        self._message = struct.pack("!BB", 0x81, 0x80 | len(PAYLOAD)) + self._mask + masked
        self._head: bytes | None = b""
        self._bytes = 0
        self._sent = 0
        self.open: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        key = base64.b64encode(os.urandom(16)).decode()
        self._transport.write(
            f"GET {self._path} HTTP/1.1\r\nHost: bench\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        if self._head is not None:
            self._head += data
            head, end, _ = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101 "):
                self.open.set_exception(systems.SystemFailed(head.decode("latin-1")))
                return
            self._head = None
            self.open.set_result(None)
            return
        before = self._bytes // FRAME
        self._bytes += len(data)
        after = self._bytes // FRAME
        self._load.delivered += after - before
        if not self._load.stopped:
            due = after // self._members + self._depth - self._sent
            if due > 0:
                self.send(due)

    def send(self, count: int) -> None:
        self._sent += count
        self._load.sent += count
        self._transport.write(self._message * count)

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.lost += not self._load.closing

    def close(self) -> None:
        self._transport.abort()


class Load:
    """All clients of one run."""

    def __init__(self) -> None:
        self.sent = self.delivered = self.lost = 0
        self.stopped = self.closing = False

    async def run(self, port: int, rooms: int, members: int, depth: int, seconds: float) -> tuple[float, int]:
        """Deliveries a second in the middle of the run, and all messages that were sent and came back to everybody."""
        loop = asyncio.get_running_loop()
        clients: list[Client] = []
        for room in range(rooms):
            for _ in range(members):
                _, client = await loop.create_connection(
                    lambda room=room: Client(self, room, members, depth),  # type: ignore[misc]
                    "127.0.0.1",
                    port,
                )
                clients.append(client)
                await client.open
        for client in clients:
            client.send(depth)
        await asyncio.sleep(min(1.0, seconds / 4))
        began, before = time.monotonic(), self.delivered
        await asyncio.sleep(seconds)
        rate = (self.delivered - before) / (time.monotonic() - began)
        self.stopped = True
        deadline = time.monotonic() + 30
        while self.delivered < self.sent * members and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        self.closing = True
        for client in clients:
            client.close()
        if self.lost or self.delivered != self.sent * members:
            raise systems.SystemFailed(f"{self.sent} messages, {self.delivered} deliveries, {self.lost} sockets lost")
        return rate, self.sent


def run(port: int, shape: tuple[int, int], depth: int, seconds: float) -> tuple[float, int]:
    rooms, members = shape
    return uvloop.run(Load().run(port, rooms, members, depth, seconds))


def answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def stored(port: int, rooms: int) -> int:
    """The sum of the numbers that the rooms have stored."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    total = 0
    for room in range(rooms):
        connection.request("POST", f"/actors/Room/room{room}/number")
        total += json.loads(connection.getresponse().read())
    connection.close()
    return total


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench_ws", description="Messages through rooms of WebSockets.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4, help="length of one run (4)")
    parser.add_argument("--depth", type=int, default=1, help="messages that each socket keeps under way (1)")
    parser.add_argument("--dir", type=Path, default="/var/tmp", help="where the data is kept (/var/tmp)")
    parser.add_argument("--actord", default=str(Path(sys.executable).with_name("actord")), help="starts actord")
    parser.add_argument("--strict", action="store_true", help="exit status 1 also when a ratio is below 1.0")
    options = parser.parse_args(arguments)
    console = Console(width=200, highlight=False)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="actord-bench-", dir=options.dir)))
        if machine.file_system(directory) in machine.VOLATILE:
            console.print(f"{directory} is kept in memory: nothing is durable there. Use --dir.")
            return EX_CONFIG
        try:
            return _compare(directory, options, console, stack)
        except systems.SystemFailed as error:
            console.print(str(error))
            return EX_UNAVAILABLE


def _compare(directory: Path, options: argparse.Namespace, console: Console, stack: ExitStack) -> int:
    program, log = directory / "rooms.py", directory / "actord.log"
    program.write_text(PROGRAM)
    ours, theirs = systems.free_port(), systems.free_port()
    command = [*shlex.split(options.actord), "serve", str(program), "--port", str(ours)]
    pid = stack.enter_context(systems.process([*command, "--data-dir", str(directory / "data")], log))
    systems.wait_until(lambda: answers(ours, "/-/health/ready"), pid, log, "actord")
    log = directory / "fastapi.log"
    command = [sys.executable, "-m", "uvicorn", "actord.loadtest.peers.fastapi_ws:app", "--host", "127.0.0.1"]
    command += ["--port", str(theirs), "--no-access-log", "--log-level", "warning", "--ws-per-message-deflate", "false"]
    pid = stack.enter_context(systems.process(command, log))
    systems.wait_until(lambda: answers(theirs, "/ready"), pid, log, "FastAPI")
    sent, failed = 0, False
    for name, shape in SHAPES.items():
        rates: dict[str, list[float]] = {"actord": [], "fastapi": []}
        for _ in range(options.rounds):
            rate, count = run(ours, shape, options.depth, options.seconds)
            rates["actord"].append(rate)
            sent += count
            rates["fastapi"].append(run(theirs, shape, options.depth, options.seconds)[0])
        ratio = median(a / b for a, b in zip(rates["actord"], rates["fastapi"], strict=True))
        for system, found in rates.items():
            middle = median(found)
            console.print(f"{name}, {system}: {middle:,.0f} deliveries/s, {middle / shape[1]:,.0f} messages/s")
        console.print(f"{name}: {ratio:.2f} times FastAPI (wanted: {WANTED})")
        failed = failed or (options.strict and ratio < WANTED)
    kept = stored(ours, max(rooms for rooms, _ in SHAPES.values()))
    console.print(f"{sent:,} messages were delivered to everybody; the numbers stored say {kept:,}.")
    return 1 if failed or kept != sent else 0


if __name__ == "__main__":
    sys.exit(main())
