"""A message to clients as it goes over the wire, encoded once for all sockets that it is for."""

from __future__ import annotations

from typing import Any

from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Frame, Opcode

# By window bits. Nothing is kept between messages, so one serves all connections.
_DEFLATE: dict[int, PerMessageDeflate] = {}
_SETTINGS: dict[Any, Any] = {"memLevel": 5}


class Outgoing:
    """``plain`` is what a socket without compression gets."""

    __slots__ = ("_deflated", "_frame", "plain", "size")

    def __init__(self, data: str | bytes) -> None:
        frame = Frame(Opcode.TEXT, data.encode()) if type(data) is str else Frame(Opcode.BINARY, data)  # type: ignore[arg-type]
        self._frame = frame
        self.size = len(frame.data)
        self.plain = frame.serialize(mask=False)
        self._deflated: dict[int, bytes] | None = None

    def deflated(self, bits: int) -> bytes:
        """For sockets that agreed on permessage-deflate with this window."""
        if self._deflated is None:
            self._deflated = {}
        found = self._deflated.get(bits)
        if found is None:
            deflate = _DEFLATE.get(bits)
            if deflate is None:
                deflate = _DEFLATE[bits] = PerMessageDeflate(True, True, 15, bits, _SETTINGS)
            found = self._deflated[bits] = self._frame.serialize(mask=False, extensions=[deflate])
        return found
