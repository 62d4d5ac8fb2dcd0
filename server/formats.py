"""Which format the body of a call has."""

from __future__ import annotations

from actord.errors import UnsupportedMediaType
from actord.server.heads import JSON, MSGPACK, NO_TYPE, PAIR, Head
from actord.shards import wire


def call_format(head: Head) -> int:
    """The flag for a body's format. Raises ``UnsupportedMediaType`` with what to do."""
    if head.content_encoding:
        raise UnsupportedMediaType("The body is compressed; send it without Content-Encoding.")
    if not head.charset_ok:
        raise UnsupportedMediaType("JSON is UTF-8: leave the charset out, or name utf-8.")
    if head.content_type == JSON:
        return 0
    if head.content_type == MSGPACK:
        return wire.MSGPACK
    if head.content_type == PAIR:
        return wire.MSGPACK | wire.PAIR
    missing = "has no Content-Type" if head.content_type == NO_TYPE else "has another Content-Type"
    raise UnsupportedMediaType(
        f"The body {missing}: add `Content-Type: application/json` (with curl, `--json` instead of `-d`)."
    )
