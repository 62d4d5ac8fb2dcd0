"""What one token allows, as a head carries it with it."""

from __future__ import annotations

from collections.abc import Iterable

from actord.server.scopes import EVERY_TOKEN, Need, Scope


class Grant:
    """What one token allows. ``calls`` remembers (type, method) of calls that are allowed, for the hot path."""

    __slots__ = ("calls", "known", "scopes", "sha256")

    def __init__(self, scopes: Iterable[Scope] = (), sha256: str = "", *, known: bool = False) -> None:
        self.scopes = tuple(scopes)
        self.sha256 = sha256
        self.known = known  # it is a token's, not everybody's
        self.calls: set[tuple[str, str]] = set()

    def change(self, scopes: Iterable[Scope]) -> None:
        """What it allows from now on, also to requests and sockets that have it already."""
        self.scopes = tuple(scopes)
        self.calls.clear()

    def end(self) -> None:
        """The token is gone; heads and sockets may still have this."""
        self.known = False
        self.change(())

    def allows(self, need: Need) -> bool:
        return any(scope.allows(need) for scope in self.scopes) or (self.known and need.type == EVERY_TOKEN)


# Of a head that was read while nobody asked for tokens.
NOBODY = Grant()
