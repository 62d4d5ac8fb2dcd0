"""A chunked body, read by llhttp, with limits of our own. See ``http`` for the promises."""

from __future__ import annotations

import httptools
from actord.server.heads import Refused
from actord.settings import Http

# What the framing of one chunk may take beyond the budget of one head for all extensions of a body.
_CHUNK_FRAMING_BYTES = 32


class ChunkedBody:
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
