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
rules above are consulted once for each distinct block. Measured: 0.5 µs a request instead of 6.
"""

from __future__ import annotations

import re
from typing import NoReturn

import httptools
from actord.errors import ActordError, BadRequest, PayloadTooLarge
from actord.settings import Http

JSON, MSGPACK, NO_TYPE, OTHER_TYPE = 0, 1, 2, 3

# A block longer than this is parsed each time; so many blocks are remembered, the oldest is forgotten first.
_CACHED_BLOCK_BYTES = 2048
_CACHED_BLOCKS = 512
# What the framing of one chunk may take beyond the budget of one head for all extensions of a body.
_CHUNK_FRAMING_BYTES = 32

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_BLOCK = re.compile(rb"(?:\r\n" + _TOKEN + rb":[\t\x20-\x7e\x80-\xff]*)*\r\n").fullmatch
_METHOD = re.compile(_TOKEN).fullmatch
_METHODS = {name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")}
_ABSOLUTE_FORM = re.compile(r"[Hh][Tt][Tt][Pp][Ss]?://([^/?@]+)([/?].*)?").fullmatch
_HOST = re.compile(rb"[0-9A-Za-z._~!$&'()*+,;=:\[\]%\-]*").fullmatch
_LENGTH = re.compile(rb"[0-9]{1,18}").fullmatch
_SECONDS = re.compile(rb"[0-9]{1,9}(?:\.[0-9]{1,9})?").fullmatch
_BARE = re.compile(rb"(?<!\r)\n|\r[^\n]")
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]").search
_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]").fullmatch
_HTTP11, _HTTP10 = b"HTTP/1.1", b"HTTP/1.0"


class Refused(Exception):
    """The bytes are no request that we serve: answer ``status`` and close. ``error`` describes it."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(f"{status} {detail}")
        self.status = status
        kind: type[ActordError] = PayloadTooLarge if status == 413 else BadRequest
        self.error = kind(detail)


class Head:
    """What a header block says. Shared by all requests that carry the same block: never changed."""

    __slots__ = (
        "charset_ok",
        "chunked",
        "content_encoding",
        "content_type",
        "deadline",
        "deadline_ok",
        "expect_continue",
        "headers",
        "host",
        "http10",
        "idempotency_key",
        "keep_alive",
        "length",
        "plain_call",
    )

    def __init__(self, http10: bool) -> None:
        self.http10 = http10
        self.headers: list[tuple[str, str]] = []  # names in lower case, values as Latin-1
        self.host: str | None = None
        self.length = 0
        self.chunked = False
        self.keep_alive = not http10
        self.expect_continue = False
        self.content_type = NO_TYPE
        self.charset_ok = True
        self.content_encoding = False
        self.deadline: float | None = None  # seconds, of Actord-Timeout
        self.deadline_ok = True
        self.idempotency_key = False
        self.plain_call = False  # HTTP/1.1, kept alive, a JSON body if any, nothing that a call has to look at


# method, request target in origin form (or "*") and printable ASCII, head, body
Request = tuple[str, str, Head, bytes]


class HeadReader:
    """Reads header blocks, and remembers those it accepted. One for all connections of a process."""

    def __init__(self, limits: Http) -> None:
        self._limits = limits
        # by version, then by the bytes of the block
        self.known: dict[bytes, dict[bytes, Head]] = {_HTTP11: {}, _HTTP10: {}}

    def read(self, version: bytes, block: bytes) -> Head:
        """The head of a block that is not known yet. Raises ``Refused``."""
        if not _BLOCK(block):
            _refuse_block(block)
        limits = self._limits
        lines = block.split(b"\r\n")
        if len(lines) - 2 > limits.header_count:
            raise Refused(431, f"More than {limits.header_count} header lines.")
        if max(map(len, lines)) > limits.line_bytes:
            raise Refused(431, f"A header line is longer than {limits.line_bytes} bytes.")
        head = _interpret(_fields(block), version == _HTTP10)
        if head.length > limits.body_bytes:
            raise Refused(413, f"The body may have {limits.body_bytes} bytes at most.")
        if len(block) <= _CACHED_BLOCK_BYTES:
            known = self.known[version]
            if len(known) >= _CACHED_BLOCKS:
                del known[next(iter(known))]
            known[block] = head
        return head


class RequestParser:
    """The requests of one connection, in their order. ``next`` gives the next whole one."""

    __slots__ = (
        "_body",
        "_body_left",
        "_chunks",
        "_continued",
        "_data",
        "_head_bytes",
        "_known",
        "_limits",
        "_line_bytes",
        "_pending",
        "_pos",
        "_reader",
        "broken",
        "has_rest",
    )

    def __init__(self, reader: HeadReader, limits: Http) -> None:
        self._reader = reader
        self._known = reader.known
        self._limits = limits
        self._data = b""  # not parsed yet, from _pos on
        self._pos = 0
        self._pending: tuple[str, str, Head] | None = None  # a request whose body is being received
        self._body = bytearray()  # not a list of parts: a part may be one byte
        self._body_left = 0
        self._chunks: _Chunks | None = None
        self._continued = False
        self._head_bytes = limits.head_bytes
        self._line_bytes = limits.line_bytes
        self.has_rest = False  # bytes beyond the last request are there already
        self.broken = False

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
        return self._chunks.seen if self._chunks is not None else len(self._body)

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
        if head.chunked:
            self._chunks = _Chunks(self._limits)
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
        return self._continue_body(data[rest:])

    def _continue_body(self, data: bytes) -> Request | None:
        if not data or self._pending is None:
            return None
        if self._chunks is not None:
            try:
                rest = self._chunks.feed(data)
            except Refused:
                self.give_up()
                raise
            if rest is None:
                return None
            body = bytes(self._chunks.body)
            self._chunks = None
        else:
            part = data[: self._body_left]
            rest = data[len(part) :]
            self._body += part
            self._body_left -= len(part)
            if self._body_left:
                return None
            body = bytes(self._body)
            self._body = bytearray()
        request = (*self._pending, body)
        self._pending = None
        self._keep(rest)
        return request

    def _keep(self, data: bytes) -> None:
        self._data = data
        self._pos = 0
        self.has_rest = data != b""

    def _incomplete(self, data: bytes, pos: int) -> None:
        """There is no whole head: refuse what can't become one, keep the rest."""
        if self.broken:
            return
        limits = self._limits
        # What was looked at before is kept from its beginning on; what is left of a batch of requests was not.
        start = 0 if pos or self._pos else len(self._data)
        data = data[pos:]
        eol = data.find(b"\r\n")
        if (eol if eol >= 0 else len(data)) > limits.line_bytes:
            self.give_up()
            raise Refused(414, f"The request line is longer than {limits.line_bytes} bytes.")
        if bare := _BARE.search(data, max(0, start - 1)):
            self.give_up()
            what = "A line ends with a bare LF." if bare.group() == b"\n" else "A CR stands alone."
            raise Refused(400, what)
        if _CONTROL(data, start):
            self.give_up()
            raise Refused(400, "A control character in the head.")
        if eol >= 0 and start <= eol + 1 and data[:2] != b"\r\n":
            self._check_line(data[:eol])
        if len(data) > limits.head_bytes:
            self.give_up()
            raise Refused(431, f"The head is longer than {limits.head_bytes} bytes.")
        self._keep(data)

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

    def give_up(self) -> None:
        """Forget everything; nothing more is parsed."""
        self.broken = True
        self._keep(b"")
        self._pending = None
        self._chunks = None
        self._body = bytearray()


class _Chunks:
    """A chunked body. llhttp gets it in pieces that end with LF, because it does not say where a message ended."""

    __slots__ = ("_done", "_limits", "_parser", "_trailer", "body", "count", "seen")

    def __init__(self, limits: Http) -> None:
        self._limits = limits
        self._done = False
        self._trailer = False
        self.body = bytearray()
        self.seen = 0
        self.count = 0
        self._parser = httptools.HttpRequestParser(self)
        self._parser.feed_data(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        self._trailer = False

    def feed(self, data: bytes) -> bytes | None:
        """The bytes after the body when it has ended with these, else None. Raises ``Refused``."""
        pos = 0
        size = len(data)
        limits = self._limits
        while pos < size:
            stop = data.find(b"\n", pos) + 1 or size
            try:
                self._parser.feed_data(data[pos:stop])
            except httptools.HttpParserError as error:
                raise Refused(400, f"The chunked body is malformed: {error}.") from None
            self.seen += stop - pos
            pos = stop
            if self._trailer:
                raise Refused(400, "Trailers are not accepted.")
            if len(self.body) > limits.body_bytes:
                raise Refused(413, f"The body may have {limits.body_bytes} bytes at most.")
            if self.seen - len(self.body) > limits.head_bytes + self.count * _CHUNK_FRAMING_BYTES:
                raise Refused(400, "The chunk extensions are too long.")
            if self._done:
                return data[pos:]
        return None

    # callbacks of the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        self._trailer = True

    def on_chunk_header(self) -> None:
        self.count += 1

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self._done = True


class _Fields:
    """Collects header fields from llhttp."""

    __slots__ = ("found",)

    def __init__(self) -> None:
        self.found: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.found.append((name.lower(), value.strip(b" \t")))


def _fields(block: bytes) -> list[tuple[bytes, bytes]]:
    fields = _Fields()
    try:
        httptools.HttpRequestParser(fields).feed_data(b"POST / HTTP/1.1" + block + b"\r\n")
    except httptools.HttpParserUpgrade:
        pass  # the fields are complete; an upgrade that we do not make is a plain request
    except httptools.HttpParserError as error:
        raise Refused(400, f"The header is malformed: {error}.") from None
    return fields.found


def _refuse_block(block: bytes) -> NoReturn:
    if bare := _BARE.search(block):
        raise Refused(400, "A line ends with a bare LF." if bare.group() == b"\n" else "A CR stands alone.")
    if _CONTROL(block):
        raise Refused(400, "A control character in the head.")
    if re.search(rb"\r\n[ \t]", block):
        raise Refused(400, "Folded header lines are not accepted.")
    if re.search(rb"\r\n" + _TOKEN + rb"[ \t]+:", block):
        raise Refused(400, "White space stands before the colon of a header line.")
    raise Refused(400, "A header line is no `Name: value`.")


def _interpret(fields: list[tuple[bytes, bytes]], http10: bool) -> Head:
    head = Head(http10)
    lengths: list[bytes] = []
    codings: list[bytes] = []
    hosts: list[bytes] = []
    connection: set[bytes] = set()
    types: list[bytes] = []
    for name, value in fields:
        if name == b"content-length":
            lengths.append(value)
        elif name == b"transfer-encoding":
            codings.append(value)
        elif name == b"host":
            hosts.append(value)
        elif name == b"connection":
            connection.update(token.strip(b" \t").lower() for token in value.split(b","))
        elif name == b"expect":
            if value.lower() != b"100-continue":
                raise Refused(417, "Only `Expect: 100-continue` is met.")
            head.expect_continue = not http10
        elif name == b"content-type":
            types.append(value)
        elif name == b"content-encoding":
            head.content_encoding = head.content_encoding or value.lower() not in (b"", b"identity")
        elif name == b"idempotency-key":
            head.idempotency_key = True
        elif name == b"actord-timeout":
            head.deadline_ok = head.deadline is None and head.deadline_ok and bool(_SECONDS(value))
            if head.deadline_ok:
                head.deadline = float(value)
        head.headers.append((name.decode("ascii"), value.decode("latin-1")))
    _interpret_framing(head, lengths, codings)
    if len(hosts) > 1:
        raise Refused(400, "Host stands there more than once.")
    if not hosts and not http10:
        raise Refused(400, "HTTP/1.1 needs a Host header.")
    if hosts:
        if not _HOST(hosts[0]):
            raise Refused(400, "Host is malformed.")
        head.host = hosts[0].decode("ascii")
    if http10:
        head.keep_alive = b"keep-alive" in connection
    if b"close" in connection:
        head.keep_alive = False
    if len(types) > 1:
        raise Refused(400, "Content-Type stands there more than once.")
    if types:
        head.content_type, head.charset_ok = _media_type(types[0])
    head.plain_call = (
        not http10
        and head.keep_alive
        and head.content_type == JSON
        and head.charset_ok
        and not head.content_encoding
        and not head.idempotency_key
        and head.deadline_ok
        and head.deadline is None
    )
    return head


def _interpret_framing(head: Head, lengths: list[bytes], codings: list[bytes]) -> None:
    if codings:
        if head.http10:
            raise Refused(400, "HTTP/1.0 has no Transfer-Encoding.")
        if lengths:
            raise Refused(400, "Content-Length stands beside Transfer-Encoding.")
        if len(codings) > 1 or codings[0].lower() != b"chunked":
            raise Refused(400, "The only Transfer-Encoding accepted is one `chunked`.")
        head.chunked = True
    if len(lengths) > 1:
        raise Refused(400, "Content-Length stands there more than once.")
    if lengths:
        if not _LENGTH(lengths[0]):
            raise Refused(400, "Content-Length is no number.")
        head.length = int(lengths[0])


def _media_type(value: bytes) -> tuple[int, bool]:
    """The kind of body, and whether its charset, when one is named, is UTF-8."""
    essence, *parameters = (part.strip(b" \t").lower() for part in value.split(b";"))
    charset_ok = all(
        parameter.partition(b"=")[2].strip(b'" \t') in (b"utf-8", b"utf8")
        for parameter in parameters
        if parameter.partition(b"=")[0].strip(b" \t") == b"charset"
    )
    if essence == b"application/json":
        return JSON, charset_ok
    if essence in (b"application/msgpack", b"application/x-msgpack", b"application/vnd.msgpack"):
        return MSGPACK, charset_ok
    return (OTHER_TYPE if essence else NO_TYPE), charset_ok
