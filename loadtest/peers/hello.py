"""The ceiling: uvloop and httptools in one process; parses each request with its body, answers a constant.

No Python server of this shape can be faster, so the ratio to it says what durability, routing and checks cost.
Usage: ``python -m actord.loadtest.peers.hello PORT``.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import httptools
import uvloop

REPLY = (
    b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 31\r\n\r\n{"ok":true,"balance":999999999}'
)


class Hello(asyncio.Protocol):
    """One connection. Collects the body, as any server must, and answers when the message is complete."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not inherit from asyncio's.
        self.transport = cast(asyncio.Transport, transport)
        self.parser = httptools.HttpRequestParser(self)
        self.url = b""
        self.body = b""

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.url = url

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.body = b""
        self.transport.write(REPLY)


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Hello, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
