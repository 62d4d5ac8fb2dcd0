"""After a run: every actor that it touched must hold what its answers said.

Accounts and carts are asked over HTTP, rooms by a socket, whose greeting has the newest number.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

from actord.loadtest.swarm.ledger import Key, Ledger
from websockets.sync.client import connect

CLIENTS = 8
SHOWN = 5


class AuditFailed(Exception):
    """An actor could not be asked, so nothing can be said about it."""


@dataclass(slots=True)
class Verdict:
    """``actors`` were compared, ``changes`` were found. ``wrong``: those outside of their bounds, in words."""

    actors: int = 0
    changes: int = 0
    uncertain: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not self.wrong

    def __str__(self) -> str:
        if self.holds:
            return f"{self.actors:,} actors hold what was answered ({self.uncertain:,} answers were uncertain)"
        return f"{len(self.wrong)} faults, such as: " + "; ".join(self.wrong[:SHOWN])


def audit(host: str, ledger: Ledger) -> Verdict:
    """Ask all actors of the ledger at ``host`` (``http://ADDRESS:PORT``). Raises AuditFailed when one is silent."""
    keys = sorted(ledger.bounds)
    verdict = Verdict(len(keys), wrong=list(ledger.faults))

    def share(first: int) -> list[tuple[Key, int]]:
        with closing(_connection(host)) as connection:
            return [(key, COUNTS[key[0]](connection, host, key[1])) for key in keys[first::CLIENTS]]

    try:
        with ThreadPoolExecutor(CLIENTS) as pool:
            found = [pair for part in pool.map(share, range(CLIENTS)) for pair in part]
    except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
        raise AuditFailed(f"an actor did not tell what it holds: {error!r}") from error
    for key, count in found:
        least, most = ledger.bounds[key]
        verdict.changes += abs(count)
        verdict.uncertain += most - least
        if not least <= count <= most:
            verdict.wrong.append(f"{key[0]} {key[1]} holds {count}, and its answers say {least} to {most}")
    return verdict


def _connection(host: str) -> http.client.HTTPConnection:
    address = urlsplit(host)
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    return kind(address.hostname or "127.0.0.1", address.port, timeout=60)


def _call(connection: http.client.HTTPConnection, type_: str, name: str, method: str, **arguments: Any) -> Any:
    path = f"/actors/{type_}/{quote(name, safe='')}/{method}"
    connection.request("POST", path, json.dumps(arguments), {"Content-Type": "application/json"})
    reply = connection.getresponse()
    body = reply.read()
    if reply.status != 200:
        raise http.client.HTTPException(f"{type_}.{method} answered {reply.status}")
    return json.loads(body)


def _balance(connection: http.client.HTTPConnection, host: str, name: str) -> int:
    return int(_call(connection, "Account", name, "balance"))


def _orders(connection: http.client.HTTPConnection, host: str, name: str) -> int:
    newest = _call(connection, "Cart", name, "orders", limit=1)
    return int(newest[0]["number"]) if newest else 0


def _messages(connection: http.client.HTTPConnection, host: str, name: str) -> int:
    address = host.replace("http", "ws", 1) + f"/actors/Room/{quote(name, safe='')}?name=audit"
    with connect(address, max_size=None) as socket:
        greeting = json.loads(socket.recv(timeout=60))
    return int(greeting["messages"][-1]["number"]) if greeting["messages"] else 0


COUNTS: dict[str, Callable[[http.client.HTTPConnection, str, str], int]] = {
    "Account": _balance,
    "Cart": _orders,
    "Room": _messages,
}
