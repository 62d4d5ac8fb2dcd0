"""How the server is, in a line for the service manager: from what the children say with their answers to pings."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic

from actord.server.children import Child

STATUS_SECONDS = 5.0


class Vitals:
    """``line`` counts calls since it was asked before; ask it every few seconds."""

    def __init__(self, workers: Sequence[Child], fronts: Sequence[Child], shards: int) -> None:
        self._workers = workers
        self._fronts = fronts
        self._shards = shards
        self._calls: dict[str, int] = {}
        self._since = monotonic()

    @property
    def all_answer(self) -> bool:
        """Nobody who runs owes the answer to a ping."""
        return all(child.answers for child in (*self._workers, *self._fronts))

    def due(self) -> bool:
        return monotonic() - self._since >= STATUS_SECONDS

    def starting(self) -> str:
        children = (*self._workers, *self._fronts)
        up = sum(child.serves for child in children)
        return f"Starting: {up} of {len(children)} processes are ready"

    def line(self, name: str) -> str:
        """What it does: calls a second, instances, shards; and who is missing."""
        parts = [_count(self._sum("instances"), "instance"), _count(self._shards, "shard")]
        calls = self._rate()
        if calls is not None:
            parts.insert(0, f"{calls:,.0f} calls/s")
        damaged = self._sum("damaged")
        if damaged:
            parts.append(f"{damaged} of them damaged")
        away = [
            f"{child.name} {'does not answer' if child.serves else 'is being replaced'}"
            for child in (*self._workers, *self._fronts)
            if not child.serves or not child.answers
        ]
        return f"{name}: {', '.join(parts)}" + "".join(f"; {words}" for words in away)

    def _sum(self, what: str) -> int:
        return sum(int(child.load.get(what, 0)) for child in self._workers)

    def _rate(self) -> float | None:
        """Calls a second since the last time; None while nobody counts them."""
        now = monotonic()
        passed, self._since = now - self._since, now
        told = {child.name: int(child.load["calls"]) for child in self._workers if "calls" in child.load}
        before, self._calls = self._calls, told
        # A worker that began anew counts from nothing.
        new = sum(calls - old if (old := before.get(name, 0)) <= calls else calls for name, calls in told.items())
        return new / max(passed, 0.001) if told else None


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")
