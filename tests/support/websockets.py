"""A WebSocket client that sends what a test wants, right or wrong, and shows every frame that comes back."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import struct
from typing import Any, NamedTuple
from urllib.parse import quote

from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

PATIENCE = 20.0
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

TEXT, BINARY, CONT, CLOSE, PING, PONG = (
    Opcode.TEXT,
    Opcode.BINARY,
    Opcode.CONT,
    Opcode.CLOSE,
    Opcode.PING,
    Opcode.PONG,
)


class Received(NamedTuple):
    """A frame from the server. ``compressed``: its RSV1 bit."""

    opcode: Opcode
    data: bytes
    fin: bool
    compressed: bool

    @property
    def code(self) -> int:
        """The code of a close frame; 1005 when it has none."""
        return struct.unpack("!H", self.data[:2])[0] if self.data else 1005

    @property
    def reason(self) -> str:
        return self.data[2:].decode()


class Socket:
    """One connection. ``handshake`` is the server's answer: status and headers (lower case)."""

    def __init__(
        self,
        address: Any,
        path: str = "/actors/Account/a",
        *,
        headers: dict[str, str | None] | None = None,
        early: bytes = b"",
        before: bytes = b"",
        wait: bool = True,
        receive_buffer: int = 0,
    ) -> None:
        """``headers``: added to those of a correct handshake, or in their place; None takes one away."""
        self.sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(address)
        key = base64.b64encode(os.urandom(16))
        sent: dict[str, str | None] = {
            "Host": "server.test",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": key.decode(),
            "Sec-WebSocket-Version": "13",
            **(headers or {}),
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items() if value is not None)
        self.sock.sendall(before + f"GET {quote(path, safe='/?=&%')} HTTP/1.1\r\n{lines}\r\n".encode() + early)
        self.expected_accept = base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self._surplus = b""
        self._reader = StreamReader()
        self._compressed = False
        if wait:
            self.read_handshake()

    def __enter__(self) -> Socket:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def read_handshake(self) -> None:
        """The next HTTP answer."""
        data = self._surplus
        while b"\r\n\r\n" not in data:
            more = self.sock.recv(65_536)
            assert more, "the server closed instead of answering"
            data += more
        head, _, rest = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.split(" ")[1])
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        if self.status == 101:
            self._reader.feed_data(rest)
            return
        size = int(self.headers.get("content-length", 0))
        while len(rest) < size:
            rest += self.sock.recv(65_536)
        self.body, self._surplus = rest[:size], rest[size:]

    # -- frames out

    def raw(self, data: bytes) -> None:
        self.sock.sendall(data)

    def frame(self, opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> None:
        self.raw(frame(opcode, data, fin=fin))

    def text(self, text: str) -> None:
        self.frame(TEXT, text.encode())

    def close(self, code: int = 1000, reason: str = "") -> None:
        self.frame(CLOSE, struct.pack("!H", code) + reason.encode())

    # -- frames in

    def receive(self) -> Received | None:
        """The next frame; None when the server has closed the connection."""
        self._first = True
        parser = Frame.parse(self._read, mask=False)
        while True:
            try:
                next(parser)
            except StopIteration as stop:
                found: Frame = stop.value
                return Received(found.opcode, bytes(found.data), found.fin, self._compressed)
            except EOFError:
                return None
            try:
                data = self.sock.recv(65_536)
            except ConnectionResetError:
                data = b""
            if data:
                self._reader.feed_data(data)
            else:
                self._reader.feed_eof()

    def _read(self, count: int) -> Any:
        data = yield from self._reader.read_exact(count)
        if self._first:  # the library would refuse a compressed frame here
            self._first = False
            self._compressed = bool(data[0] & 0x40)
            data = bytes([data[0] & 0xBF, data[1]])
        return data

    def message(self) -> str | bytes:
        """The next message, which is one frame."""
        got = self.receive()
        assert got is not None, "the server closed the connection"
        assert got.opcode in (TEXT, BINARY), got
        return got.data.decode() if got.opcode is TEXT else got.data

    def closed(self) -> tuple[int, str]:
        """What is left until the close frame is read; its code and reason. 1006 when there is none."""
        while True:
            got = self.receive()
            if got is None:
                return 1006, ""
            if got.opcode is CLOSE:
                return got.code, got.reason

    def at_end(self) -> bool:
        """Waits for the end of the connection; False when a frame comes instead."""
        return self.receive() is None


def frame(opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> bytes:
    """A masked frame as a client sends it."""
    return Frame(opcode, data, fin).serialize(mask=True)


def raw_frame(first: int, data: bytes = b"", *, masked: bool = True, length: bytes | None = None) -> bytes:
    """A frame with any first byte and, with ``length``, any length field."""
    mask = os.urandom(4) if masked else b""
    if length is None:
        size = len(data)
        length = bytes([size]) if size < 126 else struct.pack("!BH", 126, size)
    head = bytes([first, length[0] | (0x80 if masked else 0)]) + length[1:]
    body = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data)) if masked else data
    return head + mask + body
