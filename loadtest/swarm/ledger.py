"""What a swarm's answers say about the actors: the bounds between which each count must be afterwards.

Promises:
1. A change counts as uncertain from before its request leaves until its answer is known. A user who is stopped in the
   middle of a call, or a connection that breaks, leaves it uncertain for good.
2. An answer settles it at exactly what the answer says: also at nothing.

Every process of locust has one ledger, and writes it to a file of its own at its end; ``read`` adds several up.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

Key = tuple[str, str]


class Ledger:
    """``bounds[type, name]``: the least and the most that the count of an actor may be, when it began with 0."""

    def __init__(self) -> None:
        self.bounds: dict[Key, list[int]] = {}
        self.faults: list[str] = []  # what a user saw that may never be seen

    def begin(self, type_: str, name: str, change: int) -> Change:
        """A request that may change the count by ``change`` is about to leave."""
        bounds = self.bounds.setdefault((type_, name), [0, 0])
        bounds[change > 0] += change
        return Change(bounds, change)

    def fault(self, words: str) -> None:
        """Note something that breaks a promise of the server. It fails the run."""
        self.faults.append(words)

    def write(self, path: Path) -> None:
        rows = [[*key, *bounds] for key, bounds in self.bounds.items()]
        path.write_text(json.dumps({"bounds": rows, "faults": self.faults}))


class Change:
    """One uncertain change."""

    __slots__ = ("_bounds", "_change")

    def __init__(self, bounds: list[int], change: int) -> None:
        self._bounds = bounds
        self._change = change

    def settle(self, change: int) -> None:
        """The answer is here, and says that the count changed by so much. Not called when nobody knows."""
        self._bounds[self._change > 0] -= self._change
        self._bounds[0] += change
        self._bounds[1] += change


def read(paths: Iterable[Path]) -> Ledger:
    """The sum of several ledgers."""
    total = Ledger()
    for path in paths:
        found = json.loads(path.read_text())
        total.faults += found["faults"]
        for type_, name, least, most in found["bounds"]:
            bounds = total.bounds.setdefault((type_, name), [0, 0])
            bounds[0] += least
            bounds[1] += most
    return total
