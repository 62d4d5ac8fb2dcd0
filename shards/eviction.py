"""Takes idle instances out of memory: after ``idle_after`` seconds without a turn, sooner when memory is short.

1. Nothing is evicted that runs, waits, or holds a reply or a write that is not yet durable.
2. A turn pays nothing for it: it leaves the number of the current sweep behind. Activations wait in buckets, one for
   each sweep to come, and are looked at when their bucket is due; those used since move on.
3. Near the memory target the least recently used go first. It is looked at each second and each ``FRESH`` new
   activations, and begins below the target, so that the target is not passed by what a worker takes meanwhile.
4. Calls get through meanwhile: work is done in slices, and ``FAREWELLS`` turns of ``on_deactivate`` wait at a time; as
   many as calls do where those are more, so that no more instances come than can go.
5. What leaves memory makes room for others; whether the process shrinks is the allocator's affair. Python's gives back
   pieces of 1 MiB in which nothing is left, and a single object that stays holds one. So a process that has not shrunk
   is no reason to go on: the next ones go when the room is used up, because there are as many as before, or because the
   process grows again. Over the target itself it goes on, but less and less often when it gets nothing for it: a
   worker whose own needs are over its target, or whose memory is in such pieces, keeps what its actors need.
"""

from __future__ import annotations

import gc
from collections import defaultdict, deque
from collections.abc import Callable, Iterator

from actord.shards.activation import Activation
from actord.shards.allocator import give_back
from actord.shards.call import Call
from actord.shards.turns import TurnRunner

SWEEP_SECONDS = 1.0
SLICE = 2_000  # activations looked at in one piece of work
FAREWELLS = 32  # turns of ``on_deactivate`` before which a call may find itself
FRESH = 500  # about half a MiB of small instances
# As parts of the target: where evictions for memory begin, how far they go, and by how much a process that did not
# shrink must grow until there are more. They go so far that looking for the least recently used, among all, is seldom.
_HIGH, _LOW, _GROWTH = 0.95, 0.85, 0.01
_LEAST_GAIN = 0.125  # of what the evicted ones took: less was in vain
_LONGEST_PAUSE = 64  # sweeps


class Evictor:
    """Called once a second by the worker. ``resident`` returns the process's resident memory in bytes."""

    def __init__(self, runner: TurnRunner, memory_target: int, cache_limit: int, resident: Callable[[], int]) -> None:
        self._runner = runner
        self._target = memory_target
        self._cache_limit = cache_limit
        self._resident = resident
        self._own = resident()
        self._buckets: defaultdict[int, list[Activation]] = defaultdict(list)
        self._due: deque[Activation] = deque()
        self._victims: deque[Activation] = deque()
        self._farewells: deque[Call] = deque()  # turns of ``on_deactivate`` that may not have begun
        self._leaving: list[Activation] = []  # victims whose ``on_deactivate`` runs first
        self._level = self._high = int(memory_target * _HIGH)  # more resident memory than this is too much
        self._low = int(memory_target * _LOW)
        self._before = 0  # resident memory when the evictions under way began, and
        self._hoped = 0  # resident memory after which the evictions under way were worth it
        self._pause = 1  # sweeps between two attempts to get below the target
        self._next_attempt = 0
        self._added = 0  # activations so far,
        self._next_look = FRESH  # how many they are at the next look,
        self._full = 0  # so many in memory at a time have used up what the last evictions for memory gave
        self.on_growth: Callable[[], None] = lambda: None  # asks for a call of ``more`` soon
        self.before_giving_back: Callable[[], None] = lambda: None  # others let go of what was evicted
        self.evictions = 0
        self.for_memory = 0  # of them, those of promise 3

    @property
    def has_room(self) -> bool:
        """False when what the process needs by itself leaves no instance in peace."""
        return self._own < self._low

    def add(self, act: Activation) -> None:
        """Watch a new activation."""
        act.last_used = self._runner.tick
        self._buckets[self._due_tick(act)].append(act)
        self._added += 1
        if self._added >= self._next_look:
            self._next_look = self._added + FRESH
            self.on_growth()

    def sweep(self) -> bool:
        """Advance the clock and evict what is idle. True when there is more to do soon: call ``more`` then."""
        self._runner.tick += 1
        self._due += self._buckets.pop(self._runner.tick, ())
        if self._leaving:
            self._victims += [act for act in self._leaving if act.instance is None]
            self._leaving = []
        return self.more()

    def more(self) -> bool:
        """Look at one slice of what is due, and evict for memory if there is need. True when work is left."""
        tick = self._runner.tick
        for act in self._slice(self._due):
            if act.host.activations.get(act.name) is not act:
                continue  # evicted for memory since
            due = self._due_tick(act)
            if due > tick and act.instance is not None:
                if act.evictable:
                    act.kv.trim(self._cache_limit)
                self._buckets[due].append(act)
            elif not self._evict(act):
                self._buckets[tick + 1].append(act)
        return bool(self._due) or self._relieve()

    def _slice(self, acts: deque[Activation]) -> Iterator[Activation]:
        """The first of them, taken out; none while calls would wait for too many that leave."""
        farewells = self._farewells
        while farewells and farewells[0].started:
            farewells.popleft()
        most = max(FAREWELLS, self._runner.waiting - len(farewells))
        for _ in range(SLICE):
            if not acts or len(farewells) >= most:
                return
            yield acts.popleft()

    def _relieve(self) -> bool:
        """Near the memory target: evict the least recently used, a slice at a time. True when there are more."""
        if not self._victims and not self._choose():
            return False
        for act in self._slice(self._victims):
            if self._evict(act):
                self.for_memory += 1
            elif act.host.type.has_on_deactivate:
                self._leaving.append(act)
        if self._victims:
            return True
        for tick, bucket in list(self._buckets.items()):
            self._buckets[tick] = [act for act in bucket if act.host.activations.get(act.name) is act]
        self.before_giving_back()
        _give_back()
        self._judge(self._resident())
        return False

    def _choose(self) -> bool:
        """Line up whom memory pressure takes. False when there is no pressure, or nobody to take."""
        resident = self._resident()
        if resident <= self._high:
            self._level, self._pause, self._full = self._high, 1, 0
            return False
        there = self._added - self.evictions
        used_up = resident > self._level or there >= self._full
        if not used_up and (resident <= self._target or self._runner.tick < self._next_attempt):
            return False
        oldest = sorted((act for bucket in self._buckets.values() for act in bucket if act.evictable), key=_last_used)
        # What the process needs by itself can't be evicted: the instances have to give all that is too much.
        evictable = max(resident - self._own, 1)
        share = min(1.0, (resident - self._low) / evictable)
        self._victims += oldest[: max(100, int(len(oldest) * share))]
        self._full, self._before = there, resident
        self._hoped = resident - int(evictable * share * _LEAST_GAIN)
        return bool(self._victims)

    def _judge(self, resident: int) -> None:
        """After evictions for memory: when are there to be more?"""
        # What was given back is taken again before the room is used up.
        self._level = max(self._high, self._before, resident + int(self._target * _GROWTH))
        self._full = max(self._full, self._added - self.evictions + FRESH)
        self._pause = 1 if resident <= self._hoped else min(2 * self._pause, _LONGEST_PAUSE)
        self._next_attempt = self._runner.tick + self._pause

    def let_go(self) -> None:
        """Evict whoever can be, however short their rest was."""
        for tick, bucket in list(self._buckets.items()):
            self._buckets[tick] = [act for act in bucket if not self._evict(act)]

    def _due_tick(self, act: Activation) -> int:
        return act.last_used + max(1, round(act.host.idle_after / SWEEP_SECONDS))

    def _evict(self, act: Activation) -> bool:
        """True when the activation has left memory."""
        activations = act.host.activations
        if not act.evictable or activations.get(act.name) is not act:
            return False
        if act.instance is not None and act.host.type.has_on_deactivate:
            self._farewells.append(self._runner.deactivate(act))  # a turn; it goes at a later sweep
            return False
        del activations[act.name]
        act.instance = None
        act.kv.detach()
        self.evictions += 1
        return True


def _last_used(act: Activation) -> int:
    return -1 if act.instance is None else act.last_used


def _give_back() -> None:
    """Return freed memory to the system: the allocator keeps it otherwise, and the target would never be met."""
    gc.collect(1)
    give_back()
