"""The line between the supervisor and each of its children: JSON lines over a socket pair, and a child's first steps.

Supervisor to child: ``boot`` (the first line), ``ping``, ``drain``, ``admin`` with an ``id``; to a worker ``leave``
(make room for a successor, and wait) and ``serve`` (its time has come); to a front ``hold`` (true: all calls wait).
Child to supervisor: ``ready``, ``pong``, ``fatal``, ``answer`` with that ``id``; a worker also ``standby`` (it has
loaded the program), ``left`` (the shards are free) and ``crowded`` (calls of other workers keep it from leaving).
A front may ask the supervisor in the same way: ``wish`` with an ``id``, answered by ``granted`` with that ``id``.
A child ends at once when the line closes, and the kernel kills it when its parent dies: no orphan keeps a lock.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, cast

import orjson

Message = dict[str, Any]

_PR_SET_PDEATHSIG = 1


class ControlChannel(asyncio.Protocol):
    """One end of the line, on an event loop. ``on_message`` gets each message, ``on_close`` is called once."""

    def __init__(self, on_message: Callable[[Message], None], on_close: Callable[[], None]) -> None:
        self._on_message = on_message
        self._on_close = on_close
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    async def attach(self, sock: socket.socket) -> None:
        await asyncio.get_running_loop().create_connection(lambda: self, sock=sock)

    def send(self, message: Message) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(orjson.dumps(message) + b"\n")

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's
        self._transport = transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            self._on_message(orjson.loads(line))

    def connection_lost(self, exc: Exception | None) -> None:
        self._on_close()


def boot_child(fd: int) -> tuple[socket.socket, Message]:
    """The first steps of a child: tie its life to its parent's, and read the ``boot`` message.

    Blocks until the message is there; exits with 0 when the parent has gone already.
    """
    sock = socket.socket(fileno=fd)
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = sock.recv(1)  # one at a time: what follows belongs to the channel
        if not byte:
            sys.exit(0)
        line += byte
    boot: Message = orjson.loads(line)
    die_with_parent(boot["supervisor"])
    return sock, boot


def die_with_parent(parent: int) -> None:
    """Ask the kernel for SIGKILL when the parent dies (Linux); elsewhere the closed line has to do."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(0)
