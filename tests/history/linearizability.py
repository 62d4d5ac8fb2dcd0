"""Is there an order of the operations on one actor that explains every answer and respects real time?

The search of Wing and Gong with Lowe's memoisation: operations are put one after the other; one may come next when no
other one that is not yet put had returned before it was called. What failed once is not tried again.

An operation whose outcome is unknown may come at any time after its call, or never. Trying each at every place would
take time that doubles with every one of them, so they are put just in time: only right before an answered operation
whose answer does not fit as things stand, and no more of them than make it fit. Nothing is missed by that, because

1. one that nothing needs can be left out, and one may always come later than it could (it has no return);
2. so the unknown ones before an answer that fits without them can wait until behind it, where they lead to the same
   state, or be left out. That is a demand on the model: for every run R of unknown operations and answered c, where
   c fits in state s and also behind R, the state R(s) + c is c(s), or is reached by R from c(s);
3. of two ways to one state with the same answered operations put, the one that used fewer unknown ones is enough.

A brute force in ``test_linearizability.py`` holds all of this against every order of every choice.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from tests.history.recorder import Operation

# (state, operation) -> the state behind it, or None when the operation's answer could not have been given there.
Model = Callable[[Hashable, Operation], tuple[Hashable] | None]


def linearizable(operations: Sequence[Operation], model: Model, initial: Hashable) -> bool:
    """Whether the history of one key can be explained. Those answered ``no`` have not happened."""
    in_order = sorted(operations, key=lambda op: op.called)
    answered = [op for op in in_order if op.outcome == "ok"]
    unknown = [op for op in in_order if op.outcome == "unknown"]
    everything = (1 << len(answered)) - 1
    seen = _Least()
    seen.add((0, initial), 0)
    # (answered ones put, state, unknown ones used, whether it is time to use more of them)
    stack: list[tuple[int, Hashable, int, bool]] = [(0, initial, 0, False)]
    while stack:
        put, state, used, with_unknown = stack.pop()
        if put == everything:
            return True
        candidates, earliest = _candidates(answered, put)
        fits = {index: following for index in candidates if (following := model(state, answered[index]))}
        found: list[tuple[int, Hashable, int]] = []
        if with_unknown:
            missing = [index for index in candidates if index not in fits]
            for reached, more in _runs(unknown, model, state, used, earliest):
                for index in missing:
                    following = model(reached, answered[index])
                    if following is not None:
                        found.append((put | 1 << index, following[0], more))
        else:
            if len(fits) < len(candidates) and unknown:
                stack.append((put, state, used, True))  # below the others: only when they lead nowhere
            found = [(put | 1 << index, following[0], used) for index, following in fits.items()]
        for after, following_state, using in found:
            if seen.add((after, following_state), using):
                stack.append((after, following_state, using, False))
    return False


def _candidates(answered: list[Operation], put: int) -> tuple[list[int], float]:
    """The answered operations that may come next, and the first return among those not yet put."""
    found, earliest = [], math.inf
    index = _first_zero(put)
    while index < len(answered) and answered[index].called <= earliest:  # in the order of calls
        if not put >> index & 1:
            earliest = min(earliest, answered[index].returned)
            found.append(index)
        index += 1
    return [index for index in found if answered[index].called <= earliest], earliest


def _runs(
    unknown: list[Operation], model: Model, state: Hashable, used: int, earliest: float
) -> Iterator[tuple[Hashable, int]]:
    """The states that runs of unknown operations lead to, with what is used then: for each state the least runs."""
    ready = [(1 << index, op) for index, op in enumerate(unknown) if op.called <= earliest and not used >> index & 1]
    least = _Least()
    least.add(state, used)
    front = [(state, used)]
    while front:  # by length, so that a run comes before those which it makes needless
        behind = []
        for before, so_far in front:
            for bit, op in ready:
                following = None if so_far & bit else model(before, op)
                if following is not None and least.add(following[0], so_far | bit):
                    behind.append((following[0], so_far | bit))
        yield from behind
        front = behind


class _Least:
    """For each place the least sets with which it was reached: no kept one contains another."""

    def __init__(self) -> None:
        self._kept: defaultdict[Hashable, list[int]] = defaultdict(list)

    def add(self, place: Hashable, using: int) -> bool:
        """False when it was reached with the same or with less."""
        kept = self._kept[place]
        if any(less & using == less for less in kept):
            return False
        kept[:] = [more for more in kept if more & using != using]
        kept.append(using)
        return True


def _first_zero(bits: int) -> int:
    return (~bits & (bits + 1)).bit_length() - 1


def register(state: Hashable, op: Operation) -> tuple[Hashable] | None:
    """``read()``, ``write(value)`` and ``swap(old, new) -> bool`` on one value."""
    if op.method == "read":
        return (state,) if op.outcome == "unknown" or op.value == state else None
    if op.method == "write":
        return (op.arguments[0],)
    fits = state == op.arguments[0]
    if op.outcome == "ok" and op.value is not fits:
        return None
    return (op.arguments[1],) if fits else (state,)


def counter(state: Hashable, op: Operation) -> tuple[Hashable] | None:
    """``add(n)`` answers the sum behind it."""
    assert isinstance(state, int)
    following = state + op.arguments[0]
    return (following,) if op.outcome == "unknown" or op.value == following else None


def ledger(state: Hashable, op: Operation) -> tuple[Hashable] | None:
    """``deposit(mark, amount)`` answers its number and the sum behind it."""
    assert isinstance(state, tuple)
    number, total = state[0] + 1, state[1] + op.arguments[1]
    if op.outcome == "ok" and (op.value["number"], op.value["total"]) != (number, total):
        return None
    return ((number, total),)


def settled(operations: Sequence[Operation], marks: dict[str, Any]) -> list[Operation]:
    """Deposits of which the end tells what nobody was told: the unknown ones were carried out, or they were not.

    ``marks``: mark -> number and amount, as they stand at the end. Keeps the search short after many faults.
    """
    found = []
    sums = {0: 0}
    for number, amount in sorted(marks.values()):
        sums[number] = sums.get(number - 1, 0) + amount
    for op in operations:
        if op.outcome == "unknown":
            if op.arguments[0] not in marks:
                continue
            number = marks[op.arguments[0]][0]
            op = replace(op, outcome="ok", returned=math.inf, value={"number": number, "total": sums[number]})
        found.append(op)
    return found
