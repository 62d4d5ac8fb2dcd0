"""Takes idle instances out of memory: after ``idle_after`` seconds without a turn, sooner when memory is short.

1. Nothing is evicted that runs, waits, or holds a reply or a write that is not yet durable.
2. A turn pays nothing for it: it leaves the number of the current sweep behind. Activations wait in buckets, one for
   each sweep to come, and are looked at when their bucket is due; those used since move on.
3. Over the memory target the least recently used go first, in slices, so that calls get through between them.
"""

from __future__ import annotations

import gc
from collections import defaultdict
from collections.abc import Callable

from actord.shards.activation import Activation
from actord.shards.allocator import give_back
from actord.shards.turns import TurnRunner

SWEEP_SECONDS = 1.0
SLICE = 2_000  # activations looked at in one piece of work
_UNDER_TARGET = 0.9  # how far below the target an eviction for memory goes


class Evictor:
    """Called once a second by the worker. ``resident`` returns the process's resident memory in bytes."""

    def __init__(self, runner: TurnRunner, memory_target: int, cache_limit: int, resident: Callable[[], int]) -> None:
        self._runner = runner
        self._target = memory_target
        self._cache_limit = cache_limit
        self._resident = resident
        self._own = resident()
        self._buckets: defaultdict[int, list[Activation]] = defaultdict(list)
        self._due: list[Activation] = []
        self._victims: list[Activation] = []
        self.evictions = 0
        self.for_memory = 0  # of them, those of promise 3

    def add(self, act: Activation) -> None:
        """Watch a new activation."""
        act.last_used = self._runner.tick
        self._buckets[self._due_tick(act)].append(act)

    def sweep(self) -> bool:
        """Advance the clock and evict what is idle. True when there is more to do soon: call ``more`` then."""
        self._runner.tick += 1
        self._due += self._buckets.pop(self._runner.tick, ())
        return self.more()

    def more(self) -> bool:
        """Look at one slice of what is due, and evict for memory if there is need. True when work is left."""
        part, self._due = self._due[:SLICE], self._due[SLICE:]
        tick = self._runner.tick
        for act in part:
            if act.host.activations.get(act.name) is not act:
                continue  # evicted for memory since
            due = self._due_tick(act)
            if due > tick:
                if act.evictable:
                    act.kv.trim(self._cache_limit)
                self._buckets[due].append(act)
            elif not self._evict(act):
                self._buckets[tick + 1].append(act)
        return bool(self._due) or self._relieve()

    def _relieve(self) -> bool:
        """Over the memory target: evict the least recently used, a slice at a time. True when there are more."""
        if not self._victims and not self._choose():
            return False
        part, self._victims = self._victims[:SLICE], self._victims[SLICE:]
        for act in part:
            self.for_memory += self._evict(act)
        if self._victims:
            return True
        del part
        for tick, bucket in list(self._buckets.items()):
            self._buckets[tick] = [act for act in bucket if act.host.activations.get(act.name) is act]
        _give_back()
        return False

    def _choose(self) -> bool:
        """Line up whom memory pressure takes. False when there is no pressure, or nobody to take."""
        resident = self._resident()
        if resident <= self._target:
            return False
        oldest = sorted((act for bucket in self._buckets.values() for act in bucket if act.evictable), key=_last_used)
        # What the process needs by itself can't be evicted: the instances have to give all that is too much.
        evictable = max(resident - self._own, 1)
        share = min(1.0, (resident - self._target * _UNDER_TARGET) / evictable)
        self._victims = oldest[: max(100, int(len(oldest) * share))]
        return bool(self._victims)

    def let_go(self) -> None:
        """Evict whoever can be, however short their rest was."""
        for tick, bucket in list(self._buckets.items()):
            self._buckets[tick] = [act for act in bucket if not self._evict(act)]

    def _due_tick(self, act: Activation) -> int:
        return act.last_used + max(1, round(act.host.idle_after / SWEEP_SECONDS))

    def _evict(self, act: Activation) -> bool:
        """True when the activation has left memory."""
        if not act.evictable:
            return False
        if act.instance is not None and act.host.type.has_on_deactivate:
            self._runner.deactivate(act)  # a turn; it goes at a later sweep
            return False
        activations = act.host.activations
        if activations.get(act.name) is act:
            del activations[act.name]
        act.instance = None
        act.kv.detach()
        self.evictions += 1
        return True


def _last_used(act: Activation) -> int:
    return act.last_used


def _give_back() -> None:
    """Return freed memory to the system: the allocator keeps it otherwise, and the target would never be met."""
    gc.collect(1)
    give_back()
