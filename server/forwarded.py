"""Who asks, as the program is told: the client's address and the scheme, also behind a proxy.

``X-Forwarded-For`` and ``X-Forwarded-Proto`` are believed from ``server.forwarded_allow_ips`` alone, as uvicorn's
option of that name has it: of the addresses in the header, read from its end, the first one that is no such proxy's is
the client. What is no address there counts for nothing: the text of a client never gets into a log that way.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actord.server.connection import Connection
    from actord.server.heads import Head

ANY, UNIX = "*", "unix"
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


class Proxies:
    """Those whose word on clients is taken. Raises ``ValueError`` for an entry that is no address."""

    def __init__(self, text: str) -> None:
        words = text.replace(",", " ").split()
        self._all = ANY in words
        self._unix = self._all or UNIX in words
        self._networks = [
            ipaddress.ip_network(word, strict=False) for word in dict.fromkeys(words) if word not in (ANY, UNIX)
        ]

    def trusts(self, peer: str) -> bool:
        """Whether a connection from this address is a proxy's; the empty one is a unix socket's."""
        if not peer:
            return self._unix
        if self._all:
            return True
        if not self._networks:
            return False
        address = _address(peer)
        return address is not None and any(address in network for network in self._networks)

    def client(self, peer: str, headers: Sequence[tuple[str, str]]) -> str:
        """The client behind a proxy's request."""
        words = [word for name, value in headers if name == "x-forwarded-for" for word in value.split(",")]
        found = peer
        for word in reversed(words):
            address = _address(_bare(word.strip(" \t")))
            if address is None:
                break
            found = str(address)
            if not self._all and not self.trusts(found):
                break
        return found


def _bare(word: str) -> str:
    """An address without the port that some proxies add."""
    if word.startswith("["):
        return word[1:].partition("]")[0]
    return word.partition(":")[0] if word.count(":") == 1 else word


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = getattr(found, "ipv4_mapped", None)  # how an IPv4 client looks on an IPv6 socket
    return found if mapped is None else mapped


def described(connection: Connection, method: str, target: str, head: Head) -> list[Any]:
    """A request as workers are told of it: method, target, headers, client's address, and the scheme if it is https."""
    client, scheme = connection.peer, connection.scheme
    if connection.proxied:
        client = connection.server.proxies.client(client, head.headers)
        stated = [value for name, value in head.headers if name == "x-forwarded-proto"]
        if len(stated) == 1:
            scheme = _SCHEMES.get(stated[0].strip().lower(), scheme)
    fields = [method, target, head.headers, client or None]
    if scheme != "http":
        fields.append(scheme)
    return fields
