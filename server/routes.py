"""From a request target to what it means. Names are opaque: nothing is normalised, ``..`` and ``%2F`` are legal.

POST /actors/{type}/{name}/{method}          a call
*    /actors/{type}/{name}/fetch[/{path}]    the actor's own ``fetch``, which sees ``/{path}?{query}``
GET  /-/...                                  the system's own paths
everything else                              the front door
"""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from actord.errors import BadRequest, MethodNotAllowed
from actord.limits import NAME_BYTES

CALL, FETCH, DOOR, SYSTEM = 0, 1, 2, 3

# kind, type, name, method of a call or target of a fetch, whether ?timing was asked for
Route = tuple[int, str, str, str, bool]

_HEX = frozenset(b"0123456789abcdefABCDEF")


def route(method: bytes, target: bytes) -> Route:
    """What a request is for. Raises ``BadRequest`` for a bad name, ``MethodNotAllowed`` for a call without POST."""
    if b"?" in target:
        path, _, query = target.partition(b"?")
        timing = b"timing" in query and any(
            part == b"timing" or part.startswith(b"timing=") for part in query.split(b"&")
        )
    else:
        path = target
        query = b""
        timing = False
    if path.startswith(b"/actors/"):
        parts = path.split(b"/", 5)
        if len(parts) >= 5:
            _, _, type_, name, verb = parts[:5]
            if verb == b"fetch":
                rest = b"/" + (parts[5] if len(parts) == 6 else b"")
                if query or target.endswith(b"?"):
                    rest += b"?" + query
                return FETCH, segment(type_, "type"), segment(name, "name"), rest.decode("ascii"), timing
            if len(parts) == 5:
                if method != b"POST":
                    raise MethodNotAllowed(f"A call is a POST, not a {method.decode('ascii')}.")
                return CALL, segment(type_, "type"), segment(name, "name"), segment(verb, "method"), timing
    elif path.startswith(b"/-/"):
        return SYSTEM, "", "", path.decode("ascii"), timing
    return DOOR, "", "", target.decode("ascii"), timing


def segment(raw: bytes, what: str) -> str:
    """One path segment, percent-decoded strictly: UTF-8, 1 to 512 bytes, no NUL. ``+`` is a plus."""
    if b"%" in raw:
        raw = _percent_decoded(raw, what)
    if not 0 < len(raw) <= NAME_BYTES:
        raise BadRequest(
            f"The {what} in the path is empty." if not raw else f"The {what} in the path is over {NAME_BYTES} bytes."
        )
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise BadRequest(f"The {what} in the path is not UTF-8.") from None
    if "\0" in text:
        raise BadRequest(f"The {what} in the path holds a NUL.")
    return text


def _percent_decoded(raw: bytes, what: str) -> bytes:
    _, *escaped = raw.split(b"%")
    for part in escaped:
        if len(part) < 2 or part[0] not in _HEX or part[1] not in _HEX:
            raise BadRequest(f"The {what} in the path has a `%` that is no escape; write a percent sign as %25.")
    return unquote_to_bytes(raw)
