"""HTTP/1.x requests out of bytes. No I/O here: bytes in, whole requests or one refusal out.

Promises:

1. A request comes out only when all of it is there and nothing about its framing is ambiguous. Whatever two readers
   could understand differently is refused: bare LF or CR, folded lines, Content-Length twice or beside
   Transfer-Encoding, a coding other than exactly one ``chunked``, chunks on HTTP/1.0, trailers, no or several Host.
2. After a refusal nothing more is ever parsed on that connection: what follows may be somebody's smuggled request.
3. Memory is bounded before it is filled: a head, a line, a header count or a body over its limit is refused as soon
   as that is known, a declared body before its first byte is taken.
4. What can't become a request any more is refused at once, not after a time-out.

Header fields and chunks are read by llhttp (httptools). A client repeats its header block in every request, so a
block that was accepted once is remembered by its bytes, with everything that is known about it; llhttp and the
rules of ``heads`` are consulted once for each distinct block. Measured: 3.9 µs less for each request.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NoReturn

from actord.server.chunks import ChunkedBody
from actord.server.heads import BARE, CONTROL, TOKEN, Head, HeadReader, Refused
from actord.settings import Http

_METHOD = re.compile(TOKEN).fullmatch
_LAST_CHUNK = b"0\r\n\r\n"  # a chunked body that came whole ends with it
_METHODS = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")}
_ABSOLUTE_FORM = re.compile(r"[Hh][Tt][Tt][Pp][Ss]?://([^/?@]+)([/?].*)?").fullmatch
_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]").fullmatch

# method, request target in origin form (or "*") and printable ASCII, head, body
Request = tuple[str, str, Head, bytes]
BodyBegins = Callable[["RequestParser", str, str, Head], None]


class RequestParser:
    """The requests of one connection, in their order. ``next`` gives the next whole one."""

    __slots__ = (
        "_body",
        "_body_left",
        "_checked",
        "_chunks",
        "_continued",
        "_data",
        "_handed",
        "_head_bytes",
        "_known",
        "_limits",
        "_line_bytes",
        "_on_body",
        "_pending",
        "_pos",
        "_reader",
        "_sink",
        "broken",
        "has_rest",
    )

    def __init__(self, reader: HeadReader, limits: Http, on_body: BodyBegins | None = None) -> None:
        self._reader = reader
        self._known = reader.known
        self._limits = limits
        self._data = b""  # not parsed yet, from _pos on
        self._pos = 0
        self._checked = 0  # so many bytes of _data have been looked at as the beginning of a head
        self._pending: tuple[str, str, Head] | None = None  # a request whose body is being received
        self._body = bytearray()  # not a list of parts: a part may be one byte
        self._body_left = 0
        self._chunks: ChunkedBody | None = None
        self._continued = False
        self.settle()
        self.has_rest = False  # bytes beyond the last request are there already
        self.broken = False
        self._on_body = on_body  # told of a body that did not come with its head, before anything of it is taken
        self._sink: Callable[[bytes, bool], None] | None = None  # who takes this body as it comes
        self._handed = 0  # bytes that the sink has got

    def settle(self) -> None:
        """Take what the limits are now."""
        self._head_bytes = self._limits.head_bytes
        self._line_bytes = self._limits.line_bytes

    def stream(self, sink: Callable[[bytes, bool], None], limit: int) -> None:
        """Give the body that begins to ``sink`` in parts, the last one with True; it may have ``limit`` bytes."""
        self._sink = sink
        self._handed = 0
        if self._chunks is not None:
            self._chunks.limit = limit

    @property
    def in_body(self) -> bool:
        return self._pending is not None

    @property
    def in_head(self) -> bool:
        """A head has begun and is not complete."""
        return self._pending is None and self.has_rest

    @property
    def body_received(self) -> int:
        """Bytes that came since the head, framing of chunks included."""
        return self._chunks.seen if self._chunks is not None else len(self._body) + self._handed

    @property
    def body_kept(self) -> int:
        """Bytes of it that are kept here."""
        return 0 if self._sink is not None else self.body_received

    @property
    def wants_continue(self) -> bool:
        """The client waits for ``100 Continue`` before it sends the body."""
        pending = self._pending
        return pending is not None and pending[2].expect_continue and not self._continued and not self.body_received

    def continued(self) -> None:
        """``100 Continue`` was sent."""
        self._continued = True

    def next(self, data: bytes = b"") -> Request | None:
        """Take more bytes; the next request if it is complete. Raises ``Refused``, once; then only None."""
        if self._pending is not None:
            return self._continue_body(data)
        pos = 0
        if self.has_rest:
            if data:
                data = self._data[self._pos :] + data
            else:
                data = self._data
                pos = self._pos
        end = data.find(b"\r\n\r\n", pos)
        if end < 0 or end - pos > self._head_bytes or self.broken:
            self._incomplete(data, pos)
            return None
        eol = data.find(b"\r\n", pos)
        line = data[pos:eol]
        parts = line.split(b" ")
        if len(parts) != 3:
            if not line:
                return self._after_empty_line(data[pos:])
            self._refuse_line(line)
        token, raw_target, version = parts
        known = self._known.get(version)
        method = _METHODS.get(token) or (_METHOD(token) and token.decode("ascii"))
        if known is None or not method or eol - pos > self._line_bytes:
            self._refuse_line(line)
        block = data[eol : end + 2]
        head = known.get(block)
        if head is None:
            try:
                head = self._reader.read(version, block)
            except Refused:
                self.give_up()
                raise
        if not raw_target.isascii():
            self._refuse_target()
        target = raw_target.decode("ascii")
        # Printable ASCII without "#": everything else has to be percent-encoded.
        if not target.isprintable() or "#" in target:
            self._refuse_target()
        if target[:1] != "/":
            target = self._other_form(method, target, head)
        rest = end + 4
        length = head.length
        if head.apart:
            self._body_left = length
            self._chunks = ChunkedBody(self._limits) if head.chunked else None
        elif len(data) - rest >= length:
            stop = rest + length
            if stop == len(data):
                if self.has_rest:
                    self.has_rest = False
                    self._data = b""
                    self._pos = 0
            else:
                self.has_rest = True
                self._data = data
                self._pos = stop
            return method, target, head, data[rest:stop]
        else:
            self._body_left = length
        self._pending = (method, target, head)
        self._continued = False
        self._keep(b"")
        data = data[rest:]
        if self._on_body is not None and not (head.chunked and data.endswith(_LAST_CHUNK)):
            self._say_body(self._on_body)
            return self._continue_body(data)
        request = self._continue_body(data)
        if self._on_body is not None and self._pending is not None:  # what looked like its last chunk was none
            self._say_body(self._on_body)
        return request

    def _say_body(self, on_body: BodyBegins) -> None:
        assert self._pending is not None
        try:
            on_body(self, *self._pending)
        except Refused:
            self.give_up()
            raise

    def _continue_body(self, data: bytes) -> Request | None:
        if not data or self._pending is None:
            return None
        if self._chunks is not None:
            try:
                rest = self._chunks.feed(data)
            except Refused:
                self.give_up()
                raise
            if self._sink is not None:
                return self._hand_over(self._chunks.take(), rest)
            if rest is None:
                return None
            body = bytes(self._chunks.body)
            self._chunks = None
        else:
            part = data[: self._body_left]
            rest = data[len(part) :]
            self._body_left -= len(part)
            if self._sink is not None:
                self._handed += len(part)
                return self._hand_over(part, None if self._body_left else rest)
            self._body += part
            if self._body_left:
                return None
            body = bytes(self._body)
            self._body = bytearray()
        request = (*self._pending, body)
        self._pending = None
        self._keep(rest)
        return request

    def _hand_over(self, part: bytes, rest: bytes | None) -> Request | None:
        """A part of a body to its sink; ``rest`` is what follows the last one. The next request, if it is whole."""
        sink = self._sink
        assert sink is not None
        if rest is not None:
            self._sink = self._chunks = self._pending = None
            self._handed = 0
            self._keep(rest)
        sink(part, rest is not None)
        return self.next() if rest and not self.broken else None

    def _keep(self, data: bytes, checked: int = 0) -> None:
        self._data = data
        self._pos = 0
        self._checked = checked
        self.has_rest = data != b""

    def _incomplete(self, data: bytes, pos: int) -> None:
        """There is no whole head: refuse what can't become one, keep the rest."""
        if self.broken:
            return
        limits = self._limits
        # What is left of a batch of requests, or behind a body, has not been looked at before.
        start = 0 if pos or self._pos else self._checked
        data = data[pos:]
        eol = data.find(b"\r\n")
        if (eol if eol >= 0 else len(data)) > limits.line_bytes:
            self.give_up()
            raise Refused(414, f"The request line is longer than {limits.line_bytes} bytes.")
        if bare := BARE.search(data, max(0, start - 1)):
            self.give_up()
            what = "A line ends with a bare LF." if bare.group() == b"\n" else "A CR stands alone."
            raise Refused(400, what)
        if CONTROL(data, start):
            self.give_up()
            raise Refused(400, "A control character in the head.")
        if eol >= 0 and start <= eol + 1 and data[:2] != b"\r\n":
            self._check_line(data[:eol])
        if len(data) > limits.head_bytes:
            self.give_up()
            raise Refused(431, f"The head is longer than {limits.head_bytes} bytes.")
        self._keep(data, len(data))

    def _after_empty_line(self, data: bytes) -> Request | None:
        """One empty line before a request is ignored, as RFC 9112 section 2.2 asks."""
        if data[2:4] == b"\r\n":
            self.give_up()
            raise Refused(400, "Empty lines instead of a request.")
        self._keep(b"")
        return self.next(data[2:])

    def _check_line(self, line: bytes) -> None:
        parts = line.split(b" ")
        if len(parts) != 3 or parts[2] not in self._known or not _METHOD(parts[0]):
            self._refuse_line(line)

    def _refuse_line(self, line: bytes) -> NoReturn:
        self.give_up()
        if len(line) > self._limits.line_bytes:
            raise Refused(414, f"The request line is longer than {self._limits.line_bytes} bytes.")
        parts = line.split(b" ")
        if len(parts) == 3 and _METHOD(parts[0]) and _VERSION(parts[2]) and parts[2] not in self._known:
            raise Refused(505, "Only HTTP/1.1 and HTTP/1.0 are served.")
        raise Refused(400, "The first line is no `METHOD target HTTP/1.1`.")

    def _refuse_target(self) -> NoReturn:
        self.give_up()
        raise Refused(400, "The request target must begin with `/`; other characters are percent-encoded.")

    def _other_form(self, method: str, target: str, head: Head) -> str:
        if target == "*" and method == "OPTIONS":
            return target
        absolute = _ABSOLUTE_FORM(target)
        if absolute is None or method == "CONNECT":
            self._refuse_target()
        authority, path = absolute.groups()
        # RFC 9112 section 3.2.2 lets the target win over Host; two that differ are two readings, so they are refused.
        if head.host is not None and authority.lower() != head.host.lower():
            self.give_up()
            raise Refused(400, "The request target and Host name different servers.")
        path = path or "/"
        return path if path[0] == "/" else "/" + path

    def take_rest(self) -> bytes:
        """What arrived behind the last request; it is not HTTP. Nothing more is parsed."""
        rest = self._data[self._pos :] if self.has_rest else b""
        self.give_up()
        return rest

    def give_up(self) -> None:
        """Forget everything; nothing more is parsed."""
        self.broken = True
        self._keep(b"")
        self._pending = None
        self._chunks = self._sink = None
        self._body = bytearray()
