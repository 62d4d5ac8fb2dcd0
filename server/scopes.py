"""What a token lets its bearer do: scopes, and the check of one request against them.

A scope is ``TYPE[:METHOD[:VERB]]``, where each part may be ``*`` and what is left out is. It grants

* ``call``: calls of the method (POST). METHOD is also ``fetch`` for the actor's own ``fetch`` with a method that
  changes things, and ``web_socket`` for a socket, over which a client may say anything.
* ``read``: ``fetch`` with GET, HEAD or OPTIONS, and ``events`` for the stream of what the actor emits.

``@door[:VERB]`` is the program's front door, ``@admin[:VERB]`` the system's own paths beyond those of every token.
``*`` is every actor, and neither of these two.

1. What no scope names is not granted: a kind of request that is not known here is nobody's.
2. Names are compared byte for byte, never as patterns but for the single ``*``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

ANY = "*"
CALL, READ = "call", "read"
VERBS = (CALL, READ)
DOOR, ADMIN = "@door", "@admin"
EVERY_TOKEN = "@token"  # needed by what every token allows; no scope names it
NO_TYPE = "?"  # of a path that names what can be no actor's type
FETCH, EVENTS, SOCKET = "fetch", "events", "web_socket"

_SCOPE = re.compile(r"(\*|[A-Za-z_][A-Za-z0-9_]*)(?::(\*|[^\W\d]\w*)(?::(\*|\w+))?)?").fullmatch
_SPECIAL = re.compile(r"(@\w+)(?::(\*|\w+))?").fullmatch


class Need(NamedTuple):
    """What a request asks for. ``type`` is an actor's type, ``@door`` or ``@admin``."""

    type: str
    method: str
    verb: str

    def __str__(self) -> str:
        parts = (self.type, self.verb) if self.type in (DOOR, ADMIN) else self
        return ":".join(parts)


class Scope(NamedTuple):
    """One scope, read. ``str()`` gives it back in its shortest form."""

    type: str
    method: str
    verb: str

    def allows(self, need: Need) -> bool:
        if self.type != need.type and (self.type != ANY or need.type[0] == "@"):
            return False
        return self.method in (ANY, need.method) and self.verb in (ANY, need.verb)

    def __str__(self) -> str:
        parts = [self.type, self.verb] if self.type in (DOOR, ADMIN) else list(self)
        while len(parts) > 1 and parts[-1] == ANY:
            parts.pop()
        return ":".join(parts)


def parse_scope(text: str) -> Scope:
    """Raises ``ValueError`` with a sentence for people."""
    found = _SPECIAL(text)
    if found is not None:
        what, verb = found[1], found[2] or ANY
        if what not in (DOOR, ADMIN):
            raise ValueError(f"the scope {text!r} names {what}; there are {DOOR} and {ADMIN}")
        return Scope(what, ANY, _verb(text, verb))
    found = _SCOPE(text)
    if found is None:
        raise ValueError(
            f"{text!r} is no scope: TYPE, TYPE:METHOD or TYPE:METHOD:VERB, as in Account:debit, Account:*:read or *; "
            f"or {DOOR}, {ADMIN}"
        )
    return Scope(found[1], found[2] or ANY, _verb(text, found[3] or ANY))


def _verb(text: str, verb: str) -> str:
    if verb not in (ANY, *VERBS):
        raise ValueError(f"the verb of the scope {text!r} is {verb}; there are {CALL}, {READ} and {ANY}")
    return verb


def parse_scopes(texts: Iterable[str]) -> tuple[Scope, ...]:
    """Several scopes. Raises ``ValueError`` for the first that is none."""
    return tuple(parse_scope(text) for text in texts)
