"""What a front door gets when it passes an upgrade on to an actor: the answer that says so."""

from __future__ import annotations

from actord.http import FRAMING_HEADERS, Headers, Request, Response


class Forwarded(Response):
    """Returned by the front door, it leaves the socket to the actor: with the request as it was passed on, and with the
    headers of this response in the answer to the handshake. Not returned, it does nothing.
    """

    __slots__ = ("name", "request", "type")

    def __init__(self, type_: str, name: str, request: Request) -> None:
        self.status = 101
        self.body = b""
        self.headers = Headers()
        self.type = type_
        self.name = name
        self.request = request

    def lines(self) -> bytes:
        """The headers that the front adds to the 101."""
        return b"".join(
            f"{name}: {value}\r\n".encode("latin-1")
            for name, value in self.headers.multi_items()
            if name.lower() not in FRAMING_HEADERS and not name.lower().startswith("sec-websocket-")
        )


def is_upgrade(request: Request) -> bool:
    """Whether a request asks for a WebSocket."""
    return request.headers.get("upgrade", "").lower() == "websocket"
