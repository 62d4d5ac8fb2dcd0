"""``StreamingResponse``: an answer whose body is made while it is sent."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import Any

from actord.http import HeaderInput, Response


class StreamingResponse(Response):
    """A ``Response`` whose body is an async iterable of bytes or str (sent as UTF-8), usually an async generator.

    ``status``, ``headers`` and ``media_type`` as in ``Response``; ``content`` is ``body_iterator`` afterwards. The head
    is sent at once, each item as soon as it is there, and no faster than the client reads. No time limit applies once
    the head was sent. When the client goes away the iterator is cancelled where it waits, and closed; when it raises,
    the connection is cut, so that nobody takes a part for the whole.

    ``length``: the exact size in bytes, where it is known: it becomes the Content-Length, and an iterator that gives
    another number of bytes is an error. Without it the body is chunked.

    The answer of an actor's ``fetch``: the iterator begins when the turn has committed. It runs outside of the turn, so
    that other calls go on meanwhile, and storage refuses it with ``TurnEnded``: read in ``fetch`` what it needs. It may
    call actors, this one too, through ``env``.

    Raises ``TypeError`` for what is no async iterable, ``ValueError`` as ``Response`` does.
    """

    __slots__ = ("body_iterator", "length")

    def __init__(
        self,
        content: AsyncIterable[bytes | str],
        status: int = 200,
        headers: HeaderInput = None,
        media_type: str | None = None,
        *,
        length: int | None = None,
    ) -> None:
        if not isinstance(content, AsyncIterable):
            raise TypeError(
                f"the body of a StreamingResponse is an async iterator, not {type(content).__name__}; a plain one "
                "would block the worker: make it an `async def` with `yield`"
            )
        if length is not None and (type(length) is not int or length < 0):
            raise ValueError(f"length is a number of bytes, not {length!r}")
        super().__init__(b"", status, headers, media_type)
        self.body_iterator = content
        self.length = length

    @classmethod
    def passed_on(cls, content: AsyncIterable[bytes | str], status: int, head: bytes) -> StreamingResponse:
        """The response of a HEAD frame; ``head`` is what ``head`` gave."""
        answer = Response.from_wire(status, b"", head)
        response = cls.__new__(cls)
        response.status = status
        response.body = b""
        response.headers = answer.headers
        response.body_iterator = content
        length = answer.headers.get("content-length")
        response.length = None if length is None else int(length)
        return response

    def head(self) -> bytes:
        """As ``Response.head``; with the Content-Length, where the length is known."""
        lines = super().head()
        return lines if self.length is None else lines + b"content-length: %d\r\n" % self.length

    def __repr__(self) -> str:
        return f"<StreamingResponse {self.status}>"


def chunk_of(item: Any) -> bytes:
    """One item of a body as bytes. ``TypeError`` for anything but bytes and str."""
    if isinstance(item, str):
        return item.encode()
    if isinstance(item, bytes):
        return item
    if isinstance(item, bytearray | memoryview):
        return bytes(item)
    raise TypeError(f"a streamed body is made of bytes or str, not {type(item).__name__}")
