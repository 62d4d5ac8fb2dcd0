"""What the head of a call says of its frame: the format of the body, the idempotency key."""

from __future__ import annotations

from actord.errors import BadRequest, UnsupportedMediaType
from actord.limits import KEY_CHARS
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


def call_key(head: Head) -> str:
    """The idempotency key of a head that has one. Raises ``BadRequest`` when it is none that we take."""
    key = head.idempotency_key
    if not key:
        raise BadRequest(
            f"Idempotency-Key is one line with 1 to {KEY_CHARS} printable ASCII characters, bare or in double quotes, "
            'as in `Idempotency-Key: "8e03978e-40d5-43dd"`. A random UUID for each new request is good.'
        )
    return key
