"""A small HTTP/1.1 client for load: raw asyncio streams, one connection for each ``Client``, the truth about failures.

A request whose connection broke is ``Lost``: it may have been carried out. One that could not be sent is ``NotSent``.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.support.server import Reply, call_path

PATIENCE_SECONDS = 60.0


class NotSent(Exception):
    """Nobody listens: nothing was carried out."""


class Lost(Exception):
    """The connection broke behind the request."""


class Client:
    """Keeps its connection, and makes another one when it broke."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def call(self, type_: str, name: str, method: str, *args: Any) -> Reply:
        body = json.dumps(args).encode()
        head = f"POST {call_path(type_, name, method)} HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
        return await self.send(b"%bContent-Length: %d\r\n\r\n%b" % (head.encode(), len(body), body))

    async def send(self, request: bytes) -> Reply:
        """Send a whole request and read its answer."""
        if self._streams is None:
            try:
                self._streams = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError as error:
                raise NotSent(str(error)) from None
        reader, writer = self._streams
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                writer.write(request)
                reply = await _read(reader)
        except (OSError, EOFError, asyncio.IncompleteReadError) as error:
            self.close()
            raise Lost(repr(error)) from None
        if reply.headers.get("connection") == "close":
            self.close()
        return reply

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


async def _read(reader: asyncio.StreamReader) -> Reply:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Reply(int(head[0].split()[1]), headers, body)
