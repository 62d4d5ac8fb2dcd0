"""Who waits for whom: a call that would close a cycle of actors waiting for each other fails at once.

An actor waits for another while its turn has a call there that is not answered. Both kinds of cycle are one here: a
chain that comes back (A calls B, B calls A), and calls that meet (A calls B while B calls A).

1. Of each cycle exactly one call fails: the youngest, which closed it. It fails with ``ActorDeadlockError``, certainly
   unapplied, because it is refused where it is queued and only while it is. The others go on.
2. No call fails that closed no cycle when it was made.
3. Nobody polls and a call to an actor that waits for nobody costs nothing: the search begins when a call has to queue
   behind a turn that waits itself.

How: every wait is kept with the turn that waits, in its worker, and is stamped with the machine's monotonic clock. When
a call from an actor arrives and the turn in its way waits, a *probe* follows that turn's waits to their targets' turns,
over links where they live elsewhere, and so on; if it comes back to the caller, there is a cycle. It follows only waits
older than the call. That is enough: of any cycle the youngest call sees all others, which stand already wherever it
looks. And it goes on from a target only if the call that led there is still queued or running: an answer may be on its
way, or held for its commit, while the target's next turn waits for somebody. A probe can't overtake the call that it
follows, since both take the same link.

Crash story: a worker that dies takes its turns and so its waits with it. Its calls are sent again or answered by their
links, and those that are sent again probe again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from itertools import count
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from actord.errors import ActorDeadlockError
from actord.shards.wire import CYCLE, PROBE, Frame, WireError

if TYPE_CHECKING:
    from actord.shards.activation import Activation
    from actord.shards.call import Call
    from actord.shards.link import Link

Key = tuple[str, str]  # type, name
Origin = tuple[Key, int]  # the actor whose turn made a call, and when, in nanoseconds of CLOCK_MONOTONIC
Reply = tuple[int, Any, bytes | None]  # status, body (an async iterator when it is a stream), head

# Nodes that a probe has passed here. Only to save work: a probe never goes in circles, by its path.
_REMEMBERED = 20_000
# Longer chains of waiting actors are not searched: their calls end by their deadlines.
_LONGEST = 1_000


class Wait:
    """One call of a turn that is not answered. ``future`` gets the reply."""

    __slots__ = ("born", "future", "key")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.born = monotonic_ns()
        self.future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()


class Probe:
    """A search that began with one queued call: ``path`` is the caller, its target, and the actors from there on."""

    __slots__ = ("age", "path", "token", "via", "worker")

    def __init__(self, worker: int, token: int, born: int, path: tuple[Key, ...], via: int) -> None:
        self.worker = worker  # where the call is queued
        self.token = token  # which call it is, there
        self.age = (born, path[0])
        self.path = path
        self.via = via  # when the last call of the path was born


class WaitGraph:
    """The part of the graph that is this worker's: the waits of its actors' turns."""

    def __init__(
        self,
        worker: int,
        *,
        find: Callable[[Key], Activation | None],
        link_to: Callable[[Key], Link | None],
        link_of: Callable[[int], Link | None],
        refuse: Callable[[Call, ActorDeadlockError], None],
    ) -> None:
        """``find``: a key's activation in this worker. ``link_to``: the link to a key's worker, None when it is this
        one; ``link_of``: that to a worker by its index. ``refuse``: answer a call if it is still queued.
        """
        self._worker = worker
        self._find = find
        self._link_to = link_to
        self._link_of = link_of
        self._refuse = refuse
        self._tokens = count(monotonic_ns())  # those of an earlier life never come again
        self._searched: dict[int, Call] = {}  # queued calls whose probes went to other workers
        self._passed: OrderedDict[tuple[int, int, Key], None] = OrderedDict()

    def admitted(self, call: Call) -> None:
        """A call from an actor's turn has been admitted here, and queues behind another turn."""
        act = call.act
        assert call.origin is not None
        caller, born = call.origin
        target = (act.host.type.name, act.name)
        if caller == target:
            self._refuse(call, _deadlock((caller, target)))
            return
        turn = act.turn
        if turn is None or not turn.waits:
            return
        probe = Probe(self._worker, next(self._tokens), born, (caller, target), born)
        self._searched[probe.token] = call
        if not self._walk(probe):
            del self._searched[probe.token]

    def on_probe(self, frame: Frame) -> None:
        """A search comes from another worker."""
        try:
            _, worker, token, born, via, path = frame
            probe = Probe(worker, token, born, tuple((type_, name) for type_, name in path), via)
        except (ValueError, TypeError, IndexError) as error:
            raise WireError(f"a probe that makes no sense: {error}") from None
        self._walk(probe)

    def on_cycle(self, frame: Frame) -> None:
        """A search that began here has found its caller."""
        try:
            _, token, path = frame
            keys = tuple((type_, name) for type_, name in path)
        except (ValueError, TypeError) as error:
            raise WireError(f"a cycle that makes no sense: {error}") from None
        call = self._searched.pop(token, None)
        if call is not None:
            self._refuse(call, _deadlock(keys))

    def sweep(self) -> None:
        """Once a second: forget the searches of calls that wait no longer."""
        if self._searched:
            self._searched = {token: call for token, call in self._searched.items() if not call.started}

    def _walk(self, probe: Probe) -> bool:
        """Follow the waits of this worker's actors from the end of the path. True when the search goes on elsewhere."""
        elsewhere = False
        caller = probe.path[0]
        left = [(probe.path, probe.via)]
        while left:
            path, via = left.pop()
            key = path[-1]
            act = self._find(key)
            if act is None or not _pending(act, (path[-2], via)):
                continue
            if key == caller:
                self._found(probe, path)
                return True
            turn = act.turn
            if turn is None or turn.over or not turn.waits or len(path) > _LONGEST or not self._first_visit(probe, key):
                continue
            for wait in turn.waits:
                if (wait.born, key) >= probe.age or wait.future.done() or wait.key in path[1:]:
                    continue
                longer = (*path, wait.key)
                link = self._link_to(wait.key)
                if link is None:
                    left.append((longer, wait.born))
                else:
                    elsewhere = True
                    link.say((PROBE, probe.worker, probe.token, probe.age[0], wait.born, longer))
        return elsewhere

    def _first_visit(self, probe: Probe, key: Key) -> bool:
        passed = self._passed
        visit = (probe.worker, probe.token, key)
        if visit in passed:
            return False
        passed[visit] = None
        if len(passed) > _REMEMBERED:
            passed.popitem(last=False)
        return True

    def _found(self, probe: Probe, path: tuple[Key, ...]) -> None:
        if probe.worker == self._worker:
            self.on_cycle((CYCLE, probe.token, path))
            return
        link = self._link_of(probe.worker)
        if link is not None:
            link.say((CYCLE, probe.token, path))


def _pending(act: Activation, origin: Origin) -> bool:
    """Is this call queued or running there?"""
    turn = act.turn
    if turn is not None and turn.origin == origin:
        return not turn.over
    return any(call.origin == origin and not call.cancelled for call in act.mailbox or ())


def _deadlock(path: tuple[Key, ...]) -> ActorDeadlockError:
    cycle = " -> ".join(f"{type_}/{name}" for type_, name in path)
    return ActorDeadlockError(f"The call would wait for ever, because its target waits for the caller: {cycle}.")


def waits_of(turn: Any, wait: Wait) -> None:
    """Enter a wait of a turn."""
    if turn.waits is None:
        turn.waits = {wait: None}
    else:
        turn.waits[wait] = None
