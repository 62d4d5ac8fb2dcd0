"""The opening handshake of a WebSocket: from the head of a request to what was agreed. No I/O here.

1. The rules of RFC 6455 and the negotiation of permessage-deflate (RFC 7692) are the websockets library's.
2. A page of another origin is refused: browsers send their user's cookies with any upgrade. A client that sends no
   Origin is no browser and passes.
3. Whatever is refused here has not reached a worker.
"""

from __future__ import annotations

import logging

from actord.errors import ActordError, BadRequest, Forbidden
from actord.server.heads import Head
from actord.server.origins import Origins
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake, InvalidUpgrade
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

VERSION = "13"

log = logging.getLogger("actord.websocket")
log.setLevel(logging.WARNING)  # the library says something about every connection


class Refusal(Exception):
    """The upgrade is not made: answer with ``error``, under ``status`` and with ``lines`` added to its head."""

    def __init__(self, error: ActordError, status: int | None = None, lines: bytes = b"") -> None:
        super().__init__(error.detail)
        self.error = error
        self.status = status
        self.lines = lines


class Handshake:
    """What was agreed. ``protocol`` reads and writes the frames from here on."""

    __slots__ = ("accept", "extensions", "lines", "protocol")

    def __init__(self, protocol: ServerProtocol, accept: str, extensions: str | None) -> None:
        self.protocol = protocol
        self.accept = accept
        self.extensions = extensions
        self.lines = b""  # what the front door adds to the head of the answer

    def answer(self, date: bytes, subprotocol: str | None, lines: bytes) -> bytes:
        """The 101 that ends HTTP on this connection. ``lines``: more of its head, each ended by CRLF."""
        parts = [
            b"HTTP/1.1 101 Switching Protocols\r\n",
            date,
            b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
            self.accept.encode(),
            b"\r\n",
        ]
        if self.extensions is not None:
            parts.append(b"Sec-WebSocket-Extensions: %b\r\n" % self.extensions.encode())
        if subprotocol is not None:
            parts.append(b"Sec-WebSocket-Protocol: %b\r\n" % subprotocol.encode())
        return b"".join((*parts, self.lines, lines, b"\r\n"))


class Handshakes:
    """How this front answers upgrades."""

    def __init__(self, *, message_bytes: int, compression: bool, origins: Origins) -> None:
        self._message_bytes = message_bytes
        # Without context takeover an idle socket keeps no window, and one compressed message serves a whole broadcast.
        self._extensions = (
            [
                ServerPerMessageDeflateFactory(
                    server_no_context_takeover=True,
                    client_no_context_takeover=True,
                    compress_settings={"memLevel": 5},
                )
            ]
            if compression
            else None
        )
        self._origins = origins

    def open(self, target: str, head: Head, body: bytes) -> Handshake:
        """The handshake that a request asks for. Raises ``Refusal``."""
        if body or head.chunked:
            raise Refusal(BadRequest("An upgrade has no body."))
        try:
            self._origins.check(head, "open WebSockets")
        except Forbidden as error:
            raise Refusal(error) from None
        versions = [value for name, value in head.headers if name == "sec-websocket-version"]
        if versions != [VERSION]:
            detail = f"Only version {VERSION} of the WebSocket protocol is spoken here (Sec-WebSocket-Version)."
            raise Refusal(BadRequest(detail), 426, f"Sec-WebSocket-Version: {VERSION}\r\n".encode())
        protocol = ServerProtocol(
            state=State.OPEN,  # the request was read already: it begins with frames
            extensions=self._extensions,
            max_size=self._message_bytes,
            logger=log,
        )
        try:
            accept, extensions, _ = protocol.process_request(Request(target, Headers(head.headers)))
        except InvalidUpgrade as error:
            raise Refusal(BadRequest(f"The upgrade is none to a WebSocket: {error}."), 426) from None
        except InvalidHandshake as error:
            raise Refusal(BadRequest(f"The WebSocket handshake is malformed: {error}.")) from None
        return Handshake(protocol, accept, extensions)
