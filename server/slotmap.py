"""``GET /-/map``: which worker holds which slots, and where it listens for clients that call it themselves.

1. The map holds for one life of the server and says so by its ``epoch``, which is its ETag too. Workers that are
   replaced keep their places in it.
2. Whoever has the ticket may call every method of every actor through the workers' sockets. While requests need tokens,
   only those whose token allows just that get addresses and ticket. They hold until the server ends, also when the
   token is removed before; but only processes of the server's user can connect there, and they can read the data.
3. Without ``server.direct`` it has neither addresses nor ticket.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from actord.server.problems import JSON_HEAD
from actord.shards.slots import SLOTS, shard_of_slot

# How a client finds the slot of a key. Never changes between releases.
HASH = {
    "of": "type, one NUL byte, name, in UTF-8",
    "steps": ["crc32 (IEEE)", "times 2654435761 modulo 2^32", "shift right by 22 bits"],
    "slots": SLOTS,
}


class SlotMap:
    """The map of one server, as a front got it from its supervisor."""

    def __init__(self, links: Sequence[dict[str, Any]], shards: int, epoch: str, ticket: str) -> None:
        owners = {shard: index for index, link in enumerate(links) for shard in link["shards"]}
        slots: list[list[list[int]]] = [[] for _ in links]
        for slot in range(SLOTS):
            ranges = slots[owners[shard_of_slot(slot, shards)]]
            if ranges and ranges[-1][1] == slot - 1:
                ranges[-1][1] = slot
            else:
                ranges.append([slot, slot])
        direct = all("direct" in link for link in links)
        document: dict[str, Any] = {
            "epoch": epoch,
            "hash": HASH,
            "shards": shards,
            "workers": [
                {"worker": index, "slots": slots[index], "direct": link.get("direct")}
                for index, link in enumerate(links)
            ],
            "ticket": ticket if direct else None,
        }
        self._with_ticket = _Answer(epoch, document)
        bare = [{**worker, "direct": None} for worker in document["workers"]]
        self._without = _Answer(f"{epoch}-public", {**document, "workers": bare, "ticket": None})

    def respond(self, headers: Iterable[tuple[str, str]], *, ticket: bool = True) -> tuple[int, bytes, bytes]:
        """Status, head and body for a GET with these headers; names are in lower case. ``ticket``: by promise 2."""
        answer = self._with_ticket if ticket else self._without
        for name, value in headers:
            if name == "if-none-match" and answer.etag in (tag.strip() for tag in value.split(",")):
                return 304, answer.head, b""
        return 200, answer.head, answer.body


class _Answer:
    """The same for everybody who gets it, with a tag of its own."""

    def __init__(self, tag: str, document: dict[str, Any]) -> None:
        self.etag = f'"{tag}"'
        self.head = JSON_HEAD + f"Cache-Control: private, no-cache\r\nETag: {self.etag}\r\n".encode()
        self.body = orjson.dumps(document)
