"""What a header block says: strictly read, then remembered by its bytes. See ``http`` for the promises.

An ``Idempotency-Key`` is different in each block. Its line is cut out, the rest is read or remembered like any other
block, and the key is added to a copy: blocks with keys do not fill the memory. Measured: 2.1 µs each, 5.7 µs for one
that is read anew.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NoReturn

import httptools
from actord.errors import ActordError, BadRequest, PayloadTooLarge
from actord.limits import KEY_CHARS
from actord.server.grants import NOBODY
from actord.settings import Http
from actord.tracecontext import request_id, traceparent

if TYPE_CHECKING:
    from actord.server.access import Access

JSON, MSGPACK, NO_TYPE, OTHER_TYPE, PAIR = 0, 1, 2, 3, 4

HTTP11, HTTP10 = b"HTTP/1.1", b"HTTP/1.0"
TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
BARE = re.compile(rb"(?<!\r)\n|\r[^\n]")
CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]").search

# A block longer than this is parsed each time; so many blocks are remembered, the oldest is forgotten first.
_CACHED_BLOCK_BYTES = 2048
_CACHED_BLOCKS = 512

_KEY_LINE = b"\r\nidempotency-key:"
_USUAL_KEY_LINE = b"\r\nIdempotency-Key:"
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*").fullmatch
_KEY = re.compile(rb"[\x21\x23-\x7e](?:[\x20-\x7e]{0,%d}[\x21-\x7e])?" % (KEY_CHARS - 2)).fullmatch
_QUOTED_KEY = re.compile(rb'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])+)"').fullmatch  # RFC 9651 section 3.3.3
_ESCAPED = re.compile(rb'\\(["\\])')

_BLOCK = re.compile(rb"(?:\r\n" + TOKEN + rb":[\t\x20-\x7e\x80-\xff]*)*\r\n").fullmatch
_HOST = re.compile(rb"[0-9A-Za-z._~!$&'()*+,;=:\[\]%\-]*").fullmatch
_LENGTH = re.compile(rb"[0-9]{1,18}").fullmatch
_SECONDS = re.compile(rb"[0-9]{1,9}(?:\.[0-9]{1,9})?").fullmatch


class Refused(Exception):
    """The bytes are no request that we serve: answer ``status`` and close. ``error`` describes it."""

    def __init__(self, status: int, detail: str, error: ActordError | None = None) -> None:
        super().__init__(f"{status} {detail}")
        self.status = status
        kind: type[ActordError] = PayloadTooLarge if status == 413 else BadRequest
        self.error = error or kind(detail)


class Head:
    """What a header block says. Shared by all requests that carry the same block: never changed."""

    __slots__ = (
        "apart",
        "charset_ok",
        "chunked",
        "content_encoding",
        "content_type",
        "deadline",
        "deadline_ok",
        "expect_continue",
        "grant",
        "headers",
        "host",
        "http10",
        "idempotency_key",
        "keep_alive",
        "keyed_call",
        "length",
        "lines",
        "plain_call",
        "trace",
        "websocket",
    )

    def __init__(self, http10: bool) -> None:
        self.http10 = http10
        self.headers: list[tuple[str, str]] = []  # names in lower case, values as Latin-1
        self.host: str | None = None
        self.length = 0
        self.chunked = False
        self.apart = False  # its body is not simply the bytes behind it: chunked, or larger than what may come whole
        self.keep_alive = not http10
        self.expect_continue = False
        self.content_type = NO_TYPE
        self.charset_ok = True
        self.content_encoding = False
        self.deadline: float | None = None  # seconds, of Actord-Timeout
        self.deadline_ok = True
        self.idempotency_key: str | None = None  # without its quotes; empty when the header is none that we take
        self.lines = 0  # header lines
        self.grant = NOBODY  # what its token allows, while tokens are asked for
        self.websocket = False  # asks for an upgrade to a WebSocket
        self.trace: dict[str, str] | None = None  # "trace" and "rid", as the wire's extras carry them
        self.plain_call = False  # HTTP/1.1, kept alive, a JSON body if any, nothing that a call has to look at
        self.keyed_call = False  # the same, with a good idempotency key

    def note_trace(self, name: bytes, value: bytes) -> None:
        """Keep a header that tells the calls of one request from others; the first one of its name counts."""
        text = value.decode("latin-1")
        kind, found = ("trace", traceparent(text)) if name == b"traceparent" else ("rid", request_id(text))
        if found:
            self.trace = {kind: found} | (self.trace or {})

    def with_key(self, key: str, value: bytes) -> Head:
        """A copy with an idempotency key, which the header ``value`` stands for."""
        head = Head.__new__(Head)
        head.http10 = self.http10
        head.headers = [*self.headers, ("idempotency-key", value.decode("latin-1"))]
        head.host = self.host
        head.length = self.length
        head.chunked = self.chunked
        head.apart = self.apart
        head.keep_alive = self.keep_alive
        head.expect_continue = self.expect_continue
        head.content_type = self.content_type
        head.charset_ok = self.charset_ok
        head.content_encoding = self.content_encoding
        head.deadline = self.deadline
        head.deadline_ok = self.deadline_ok
        head.idempotency_key = key if self.idempotency_key is None else ""
        head.lines = self.lines + 1
        head.grant = self.grant
        head.websocket = self.websocket
        head.trace = self.trace
        head.plain_call = False
        head.keyed_call = self.plain_call and key != ""
        return head


class HeadReader:
    """Reads header blocks, and remembers those it accepted. One for all connections of a process."""

    def __init__(self, limits: Http) -> None:
        self._limits = limits
        self._access: Access | None = None
        # by version, then by the bytes of the block
        self.known: dict[bytes, dict[bytes, Head]] = {HTTP11: {}, HTTP10: {}}

    def forget(self) -> None:
        """The limits have changed: what was accepted is read again."""
        for known in self.known.values():
            known.clear()

    def ask(self, access: Access) -> None:
        """Heads have grants from now on, those of the tokens as they are now: what was remembered is read anew."""
        self._access = access
        for known in self.known.values():
            known.clear()

    def read(self, version: bytes, block: bytes) -> Head:
        """The head of a block that is not known yet. Raises ``Refused``."""
        at = block.find(_USUAL_KEY_LINE)
        if at < 0:
            at = block.lower().find(_KEY_LINE)
        if at >= 0:
            return self._read_keyed(version, block, at)
        if not _BLOCK(block):
            _refuse_block(block)
        limits = self._limits
        lines = block.split(b"\r\n")
        if len(lines) - 2 > limits.header_count:
            raise self._too_many_lines()
        if max(map(len, lines)) > limits.line_bytes:
            raise Refused(431, f"A header line is longer than {limits.line_bytes} bytes.")
        fields = _fields(block)
        head = _interpret(fields, version == HTTP10)
        if self._access is not None:
            head.grant = self._access.grant_of([value for name, value in fields if name == b"authorization"])
            if head.grant.known:  # a token of ours is not the program's business
                head.headers = [pair for pair in head.headers if pair[0] != "authorization"]
        most = max(limits.body_bytes, limits.upload_bytes)
        if head.length > most:
            raise Refused(413, f"The body may have {most} bytes at most.")
        head.apart = head.chunked or head.length > limits.body_bytes
        head.lines = len(lines) - 2
        # The key of an upgrade and what traces a call are new each time.
        if len(block) <= _CACHED_BLOCK_BYTES and not head.websocket and head.trace is None:
            known = self.known[version]
            if len(known) >= _CACHED_BLOCKS:
                del known[next(iter(known))]
            known[block] = head
        return head

    def _read_keyed(self, version: bytes, block: bytes, at: int) -> Head:
        """The head of a block with an idempotency key, whose line begins (with a line end) at ``at``."""
        end = block.find(b"\r\n", at + 2)
        value = block[at + len(_KEY_LINE) : end].strip(b" \t")
        if _KEY(value):
            key = value.decode("ascii")
        elif _VALUE(value):
            key = _quoted_key(value)
        else:
            _refuse_block(block)
        rest = block[:at] + block[end:]
        head = self.known[version].get(rest)
        if head is None:
            head = self.read(version, rest)
        if head.lines >= self._limits.header_count:
            raise self._too_many_lines()
        if end - at - 2 > self._limits.line_bytes:
            raise Refused(431, f"A header line is longer than {self._limits.line_bytes} bytes.")
        return head.with_key(key, value)

    def _too_many_lines(self) -> Refused:
        return Refused(431, f"More than {self._limits.header_count} header lines.")


def _quoted_key(value: bytes) -> str:
    """The key that a header's value stands for which is no bare one; empty when it is none."""
    quoted = _QUOTED_KEY(value)
    if quoted is None:
        return ""
    key = _ESCAPED.sub(rb"\1", quoted[1])
    return key.decode("ascii") if len(key) <= KEY_CHARS else ""


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
    if bare := BARE.search(block):
        raise Refused(400, "A line ends with a bare LF." if bare.group() == b"\n" else "A CR stands alone.")
    if CONTROL(block):
        raise Refused(400, "A control character in the head.")
    if re.search(rb"\r\n[ \t]", block):
        raise Refused(400, "Folded header lines are not accepted.")
    if re.search(rb"\r\n" + TOKEN + rb"[ \t]+:", block):
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
        elif name == b"upgrade":
            head.websocket = value.lower() == b"websocket" and not http10
        elif name == b"actord-timeout":
            head.deadline_ok = head.deadline is None and head.deadline_ok and bool(_SECONDS(value))
            if head.deadline_ok:
                head.deadline = float(value)
        elif name == b"traceparent" or name == b"x-request-id":
            head.note_trace(name, value)
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
    head.websocket = head.websocket and b"upgrade" in connection
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
        and head.deadline_ok
        and head.deadline is None
        and head.trace is None
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
    if essence == b"application/vnd.actord.call":  # the codec's [positional, keywords]: what a Python caller gives
        return PAIR, charset_ok
    return (OTHER_TYPE if essence else NO_TYPE), charset_ok
