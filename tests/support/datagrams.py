"""The service manager's end of ``sd_notify``: a datagram socket, and what has arrived at it, line by line."""

from __future__ import annotations

import contextlib
import os
import select
import socket
from collections.abc import Callable
from typing import Self

PATIENCE_SECONDS = 30.0


class Datagrams:
    """``address`` is a path, or a name behind ``@``."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.seen: list[list[str]] = []
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind("\0" + address[1:] if address.startswith("@") else address)
        self._sock.settimeout(PATIENCE_SECONDS)

    def next(self) -> list[str]:
        """The lines of the next datagram, when it has come."""
        self.seen.append(self._sock.recv(1 << 16).decode().split("\n"))
        return self.seen[-1]

    def until(self, fits: Callable[[list[str]], bool]) -> list[str]:
        while not fits(lines := self.next()):
            pass
        return lines

    def until_line(self, start: str) -> str:
        """Wait for a line that begins in this way."""
        lines = self.until(lambda lines: any(line.startswith(start) for line in lines))
        return next(line for line in lines if line.startswith(start))

    def empty(self) -> bool:
        """Has nothing come that was not looked at?"""
        return not select.select([self._sock], [], [], 0)[0]

    def rest(self) -> list[list[str]]:
        """What has come and was not looked at."""
        found = []
        while not self.empty():
            found.append(self.next())
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sock.close()
        with contextlib.suppress(OSError):
            os.unlink(self.address)
