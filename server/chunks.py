"""A chunked body, read by llhttp, with limits of our own. See ``http`` for the promises."""

from __future__ import annotations

import re

import httptools
from actord.server.heads import Refused
from actord.settings import Http

# What the framing of one chunk may take beyond the budget of one head for all extensions of a body.
_CHUNK_FRAMING_BYTES = 32

_SIZE = re.compile(rb"[0-9A-Fa-f]+").match


class ChunkedBody:
    """A chunked body. llhttp gets it in pieces that end with LF, because it does not say where a message ended."""

    __slots__ = (
        "_done",
        "_limits",
        "_parser",
        "_size_line",
        "_size_read",
        "_trailer",
        "body",
        "count",
        "handed",
        "limit",
        "seen",
    )

    def __init__(self, limits: Http) -> None:
        self._limits = limits
        self._done = False
        self._trailer = False
        # llhttp does not tell the size of a chunk, and one that is too large has to be refused before its data come:
        # the line that it stands on is kept until llhttp has accepted it.
        self._size_line: bytearray | None = bytearray()
        self._size_read = False
        self.body = bytearray()
        self.seen = 0
        self.handed = 0  # bytes that ``take`` has given out
        self.limit = limits.body_bytes
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
            if self._size_line is not None:
                self._size_line += data[pos:stop]
            try:
                self._parser.feed_data(data[pos:stop])
            except httptools.HttpParserError as error:
                raise Refused(400, f"The chunked body is malformed: {error}.") from None
            self.seen += stop - pos
            pos = stop
            if self._trailer:
                raise Refused(400, "Trailers are not accepted.")
            size_so_far = self.handed + len(self.body)
            if size_so_far + self._announced() > self.limit:
                raise Refused(413, f"The body may have {self.limit} bytes at most.")
            if self.seen - size_so_far > limits.head_bytes + self.count * _CHUNK_FRAMING_BYTES:
                raise Refused(400, "The chunk extensions are too long.")
            if self._done:
                return data[pos:]
        return None

    def take(self) -> bytes:
        """What has come of the body since the last time; it is kept no longer."""
        part = bytes(self.body)
        self.body.clear()
        self.handed += len(part)
        return part

    def _announced(self) -> int:
        """The size of the chunk whose first line has just ended; 0 at any other time."""
        if not self._size_read or self._size_line is None:
            return 0
        digits = _SIZE(self._size_line)
        self._size_line = None
        return int(digits.group(), 16) if digits else 0

    # callbacks of the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        self._trailer = True

    def on_chunk_header(self) -> None:
        self.count += 1
        self._size_read = True

    def on_chunk_complete(self) -> None:
        self._size_line = bytearray()
        self._size_read = False

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self._done = True
