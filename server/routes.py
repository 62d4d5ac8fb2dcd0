"""From a request target to what it means. Names are opaque: nothing is normalised, ``..`` and ``%2F`` are legal.

POST /actors/{type}/{name}/{method}          a call
GET  /actors/{type}/{name}/events            what the actor emits, as a stream
*    /actors/{type}/{name}/fetch[/{path}]    the actor's own ``fetch``, which sees ``/{path}?{query}``
GET  /actors/{type}/{name}   with Upgrade     a socket at the actor
GET  /-/...                                  the system's own paths
everything else                              the front door
"""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from actord.errors import BadRequest, MethodNotAllowed
from actord.limits import NAME_BYTES

CALL, FETCH, DOOR, SYSTEM, EVENTS = 0, 1, 2, 3, 4

# kind, type, name, method of a call or target of a fetch or of events, whether ?timing was asked for
Route = tuple[int, str, str, str, bool]

_HEX = frozenset(b"0123456789abcdefABCDEF")


def route(method: str, target: str) -> Route:
    """What a request is for; ``target`` is printable ASCII that begins with ``/``.

    Raises ``BadRequest`` for a bad name, ``MethodNotAllowed`` for a call without POST.
    """
    if target.startswith("/actors/") and "%" not in target and "?" not in target and len(target) <= NAME_BYTES:
        # The hot path: nothing to decode, nothing too long.
        parts = target.split("/")
        if len(parts) == 5 and method == "POST":
            _, _, type_, name, verb = parts
            if type_ and name and verb and verb != "fetch":
                return CALL, type_, name, verb, False
    return _route(method, target)


def _route(method: str, target: str) -> Route:
    path, mark, query = target.partition("?")
    timing = "timing" in query and any(part == "timing" or part.startswith("timing=") for part in query.split("&"))
    if path.startswith("/-/"):
        return SYSTEM, "", "", path, timing
    parts = path.split("/", 5)
    if len(parts) >= 5 and parts[1] == "actors":
        _, _, type_, name, verb = parts[:5]
        if verb == "fetch":
            rest = "/" + (parts[5] if len(parts) == 6 else "") + mark + query
            return FETCH, segment(type_, "type"), segment(name, "name"), rest, timing
        if len(parts) == 5:
            if verb == "events" and method in ("GET", "HEAD"):
                return EVENTS, segment(type_, "type"), segment(name, "name"), "/events" + mark + query, timing
            if method != "POST":
                raise MethodNotAllowed(f"A call is a POST, not a {method}.")
            return CALL, segment(type_, "type"), segment(name, "name"), segment(verb, "method"), timing
    return DOOR, "", "", target, timing


def socket_route(target: str) -> tuple[str, str] | None:
    """The actor whose socket a request with Upgrade asks for; None: it is the front door's. Raises ``BadRequest``."""
    parts = target.partition("?")[0].split("/", 5)
    if len(parts) == 4 and parts[1] == "actors":
        return segment(parts[2], "type"), segment(parts[3], "name")
    return None


def segment(text: str, what: str) -> str:
    """One path segment, percent-decoded strictly: UTF-8, 1 to 512 bytes, no NUL. ``+`` is a plus."""
    if "%" in text:
        text = _percent_decoded(text, what)
    if not text:
        raise BadRequest(f"The {what} in the path is empty.")
    if len(text.encode()) > NAME_BYTES:
        raise BadRequest(f"The {what} in the path is over {NAME_BYTES} bytes.")
    if "\0" in text:
        raise BadRequest(f"The {what} in the path holds a NUL.")
    return text


def _percent_decoded(text: str, what: str) -> str:
    raw = text.encode("ascii")
    for part in raw.split(b"%")[1:]:
        if len(part) < 2 or part[0] not in _HEX or part[1] not in _HEX:
            raise BadRequest(f"The {what} in the path has a `%` that is no escape; write a percent sign as %25.")
    try:
        return unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        raise BadRequest(f"The {what} in the path is not UTF-8.") from None
