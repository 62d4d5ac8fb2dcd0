"""What tells the requests of one cause from others: W3C ``traceparent`` and ``X-Request-Id``. A bad one is as none."""

from __future__ import annotations

import re

# Version 00: trace id, parent id, flags; neither id is all zeros.
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}").fullmatch
_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}").fullmatch

SAMPLED = 1


def traceparent(value: str) -> str:
    """The value of the header if it is one, else ""."""
    return value if _TRACEPARENT(value) else ""


def request_id(value: str) -> str:
    """The value of the header if it is 1 to 128 printable ASCII characters without blanks, else ""."""
    return value if _REQUEST_ID(value) else ""


def is_sampled(parent: str) -> bool:
    """Whether whoever made this ``traceparent`` records the trace."""
    return bool(int(parent[-2:], 16) & SAMPLED)
