"""Which pages in browsers may ask: those of the server's own origin, and those that ``http.origins`` lists.

A browser sends what its user is logged in with, or may reach, with requests of any page. It asks before it sends a POST
with JSON, and is not allowed to: nothing here answers such a question. Two kinds of requests need no leave: upgrades to
WebSockets, and a POST as a form would make it, which a call without arguments could be. Of these the ``Origin`` is
looked at, which no page can change. A client that sends none is no browser and passes.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from actord.errors import Forbidden
from actord.server.heads import Head

ANY = "*"
_PORTS = {"http": 80, "https": 443}


class Origins:
    """``listed``: the option's value."""

    def __init__(self, listed: str) -> None:
        self._listed = frozenset(origin.lower().rstrip("/") for origin in listed.split())

    def check(self, head: Head, doing: str) -> None:
        """Raises ``Forbidden``; ``doing`` is what pages of another origin may not do, for its words."""
        sent = [value for name, value in head.headers if name == "origin"]
        if not sent or ANY in self._listed:
            return
        if len(sent) == 1 and (sent[0].lower() in self._listed or _same_origin(sent[0], head.host or "")):
            return
        raise Forbidden(
            f"Pages of this origin may not {doing} here. The server lets in its own origin and those that its option "
            "http.origins lists."
        )


def _same_origin(origin: str, host: str) -> bool:
    """Whether a page of ``origin`` came from the server that the client knows as ``host``. TLS may end before us, so
    the scheme says nothing but the default port."""
    try:
        parts = urlsplit(origin)
        port = _PORTS.get(parts.scheme)
        if port is None or parts.path or parts.query or parts.fragment or parts.username is not None:
            return False
        own = urlsplit(f"//{host}")
        return parts.hostname == own.hostname and (parts.port or port) == (own.port or port)
    except ValueError:
        return False
