"""Which worker a request goes to: the slot of its key for actors, any ready worker for the front door."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from actord.errors import ActorUnavailable
from actord.shards.link import Link
from actord.shards.slots import SLOTS, shard_of_slot


@dataclass(frozen=True, slots=True)
class Worker:
    """Where a worker listens, and which shards it owns."""

    path: str
    shards: tuple[int, ...]


class Router:
    """The links of one front. ``table[slot]`` is the link to the owner of a slot."""

    def __init__(
        self,
        workers: Sequence[Worker],
        shards: int,
        *,
        caller: str,
        begun_path: Callable[[int], str],
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_change = on_change
        self._seen: set[Link] = set()
        self._next_door = 0
        self.links = [
            Link(worker.path, caller=caller, begun_path=begun_path(index), on_ready=self._ready, on_down=self._down)
            for index, worker in enumerate(workers)
        ]
        owners = {shard: self.links[index] for index, worker in enumerate(workers) for shard in worker.shards}
        self.table = [owners[shard_of_slot(slot, shards)] for slot in range(SLOTS)]
        self.front_door = False

    def connect(self) -> None:
        for link in self.links:
            link.connect()

    def close(self) -> None:
        for link in self.links:
            link.close()

    def hold(self, held: bool) -> None:
        """Let no call and no event begin, or go on."""
        for link in self.links:
            link.hold(held)

    def expire(self) -> None:
        """Once a second: finish the calls that nobody should wait for any longer."""
        for link in self.links:
            link.expire()

    @property
    def ready(self) -> bool:
        """All workers answer now, or are about to: calls for one that is being replaced wait for its successor."""
        return all(link.ready or link.moving for link in self.links)

    @property
    def started(self) -> bool:
        """All workers have answered at least once."""
        return len(self._seen) == len(self.links)

    def door(self) -> Link:
        """A worker for the next request to the front door: in turn, those that are ready first."""
        links = self.links
        waiting: Link | None = None
        for _ in links:
            self._next_door = (self._next_door + 1) % len(links)
            link = links[self._next_door]
            if link.ready:
                return link
            waiting = waiting or link
        if waiting is None or not self._seen:
            raise ActorUnavailable("No worker is up yet.", retry_after=1)
        return waiting

    def _ready(self, link: Link) -> None:
        self._seen.add(link)
        self.front_door = any(other.facts.get("front_door") for other in self.links)
        self._on_change()

    def _down(self, link: Link) -> None:
        self._on_change()
