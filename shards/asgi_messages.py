"""What messages of an ASGI application hold: headers and bodies of responses, checked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from actord.http import FRAMING_HEADERS, check_header
from actord.shards.lifespan import Message


class ClientGone(OSError):
    """``send`` after the client has gone."""


def header_lines(headers: Iterable[Iterable[bytes]]) -> list[tuple[str, str]]:
    """Headers as text. Raises ``ValueError`` for what must not be sent."""
    lines = []
    for raw_name, raw_value in headers:
        name, value = bytes(raw_name).decode("latin-1"), bytes(raw_value).decode("latin-1").strip(" \t")
        check_header(name, value)
        lines.append((name, value))
    return lines


def response_head(headers: Iterable[Iterable[bytes]]) -> tuple[bytes, int | None]:
    """The header lines of a response, and the length that it announces. Raises ``ValueError``."""
    lines = []
    length: int | None = None
    for name, value in header_lines(headers):
        lower = name.lower()
        if lower == "content-length":
            length = int(value)
        elif lower not in FRAMING_HEADERS:
            lines.append(f"{name}: {value}\r\n")
    return "".join(lines).encode("latin-1"), length


def body_of(message: Message) -> bytes:
    """The bytes of a part of a response's body. Raises ``TypeError``."""
    body: Any = message.get("body", b"")
    if isinstance(body, bytes):
        return body
    if isinstance(body, bytearray | memoryview):
        return bytes(body)
    raise TypeError(f"the body of a message is bytes, not {type(body).__name__}")
