"""Cycles of waiting actors, against an oracle that sees all: random calls of several workers, frames in any order."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import Any

import pytest
from actord.shards.waits import Key, Wait, WaitGraph, waits_of
from actord.shards.wire import CYCLE, PROBE, Frame
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.lots import cases


class Turn:
    def __init__(self, caller: Waiting | None) -> None:
        self.waits: dict[Wait, None] | None = None
        self.over = False
        self.caller = caller
        self.origin = caller.origin if caller is not None else None


class Actor:
    """Both what the graph sees of an activation and what it needs of its type."""

    def __init__(self, number: int, worker: int) -> None:
        self.key: Key = ("T", str(number))
        self.name = str(number)
        self.worker = worker
        self.turn: Turn | None = None
        self.mailbox: deque[Waiting] = deque()
        self.host = self
        self.type: Any = type("Type", (), {"name": "T"})


class Waiting:
    """A call under way; the graph sees it as the queued call."""

    def __init__(self, caller: Actor, turn: Turn, target: Actor, wait: Wait) -> None:
        self.caller, self.turn, self.act, self.wait = caller, turn, target, wait
        self.origin = (caller.key, wait.born)
        self.cancelled = False
        self.started = 0.0
        self.answered = False  # by the target; the caller may not know yet
        self.must = self.may = False


class World:
    """Workers that are joined by queues of frames; ``deliver`` takes one frame, from whichever queue the test says."""

    def __init__(self, actors: int, workers: int) -> None:
        self.actors = [Actor(n, n % workers) for n in range(actors)]
        self.queues: dict[tuple[int, int], deque[Any]] = {}
        self.refused: list[tuple[Waiting, str]] = []
        self.open: set[Waiting] = set()
        self.calls: list[Waiting] = []
        self.graphs = [self._graph(worker) for worker in range(workers)]
        for actor in self.actors:
            actor.turn = Turn(None)  # as if called from outside

    def _graph(self, worker: int) -> WaitGraph:
        world = self

        class Line:
            def __init__(self, to: int) -> None:
                self.to = to

            def say(self, frame: Frame) -> None:
                world.put(worker, self.to, frame)

        def owner(key: Key) -> Any:
            found = self.actors[int(key[1])].worker
            return None if found == worker else Line(found)

        return WaitGraph(
            worker,
            find=lambda key: self.actors[int(key[1])],  # type: ignore[arg-type, return-value]
            link_to=owner,
            link_of=lambda index: Line(index),  # type: ignore[arg-type, return-value]
            refuse=lambda call, error: self.refuse(call, error.detail),  # type: ignore[arg-type]
        )

    def put(self, source: int, to: int, item: Any) -> None:
        self.queues.setdefault((source, to), deque()).append(item)

    # -- what happens

    def call(self, caller: Actor, target: Actor) -> Waiting:
        turn = caller.turn
        assert turn is not None
        stand = [one for one in self.open if not one.answered]
        # A path over a call that is itself about to be refused may be gone when it is looked for.
        must = self.reaches(target, caller, [one for one in stand if not one.may])
        may = self.reaches(target, caller, stand)
        wait = Wait(target.key)
        waits_of(turn, wait)
        call = Waiting(caller, turn, target, wait)
        call.must, call.may = must, may
        self.open.add(call)
        self.calls.append(call)
        if caller.worker == target.worker:
            self.arrive(call)
        else:
            self.put(caller.worker, target.worker, call)
        return call

    def arrive(self, call: Waiting) -> None:
        target = call.act
        if target.turn is None:
            self.begin(target, call)
            return
        target.mailbox.append(call)
        self.graphs[target.worker].admitted(call)  # type: ignore[arg-type]

    def begin(self, actor: Actor, call: Waiting) -> None:
        call.started = 1.0
        actor.turn = Turn(call)

    def end_turn(self, actor: Actor) -> None:
        turn = actor.turn
        assert turn is not None
        assert not turn.waits
        turn.over = True
        if turn.caller is not None:
            self.answer(turn.caller)
        actor.turn = None
        if actor.mailbox:
            self.begin(actor, actor.mailbox.popleft())

    def refuse(self, call: Waiting, why: str) -> None:
        if call in call.act.mailbox:
            call.act.mailbox.remove(call)
            self.refused.append((call, why))
            self.answer(call)

    def answer(self, call: Waiting) -> None:
        call.answered = True  # and on its way: held for its commit, or on a link of its own
        self.put(call.act.worker, call.caller.worker + 100, call)

    def answered(self, call: Waiting) -> None:
        assert call.turn.waits is not None
        del call.turn.waits[call.wait]
        self.open.discard(call)

    def deliver(self, source: int, to: int) -> None:
        item = self.queues[source, to].popleft()
        if isinstance(item, Waiting):
            self.answered(item) if item.answered else self.arrive(item)
        elif item[0] == PROBE:
            self.graphs[to].on_probe(item)
        else:
            assert item[0] == CYCLE
            self.graphs[to].on_cycle(item)

    # -- the oracle

    def reaches(self, start: Actor, end: Actor, calls: list[Waiting]) -> bool:
        """Does ``start`` wait for ``end``, directly or through others?"""
        seen: set[Actor] = set()
        left = [start]
        while left:
            actor = left.pop()
            if actor is end:
                return True
            if actor not in seen:
                seen.add(actor)
                left += [call.act for call in calls if call.caller is actor]
        return False

    @property
    def busy_lines(self) -> list[tuple[int, int]]:
        return sorted(line for line, queue in self.queues.items() if queue)


def run(chance: random.Random, workers: int) -> World:
    world = World(chance.randint(2, 6), workers)
    for _ in range(chance.randint(5, 60)):
        lines = world.busy_lines
        running = [actor for actor in world.actors if actor.turn is not None]
        ready = [actor for actor in running if not actor.turn.waits]  # type: ignore[union-attr]
        choices = ["deliver"] * bool(lines) + ["end"] * bool(ready) + ["call"] * bool(running)
        if not choices:
            break
        choice = chance.choice(choices)
        if choice == "deliver":
            world.deliver(*chance.choice(lines))
        elif choice == "end":
            world.end_turn(chance.choice(ready))
        else:
            # mostly turns that wait for nothing yet; now and then one that waits for several at once
            several = chance.random() < 0.25
            caller = chance.choice(running if several or not ready else ready)
            world.call(caller, chance.choice(world.actors))
    return world


def settle(world: World) -> None:
    """No new calls: frames arrive, turns that wait for nothing end."""
    while True:
        if lines := world.busy_lines:
            world.deliver(*lines[0])
            continue
        ready = [actor for actor in world.actors if actor.turn is not None and not actor.turn.waits]
        if not ready:
            return
        world.end_turn(ready[0])


@pytest.mark.parametrize("workers", [1, 2, 3])
@settings(max_examples=cases(300), deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_exactly_the_calls_that_close_a_cycle_are_refused_and_nobody_waits_for_ever(workers: int, seed: int) -> None:
    async def go() -> None:
        world = run(random.Random(seed), workers)
        settle(world)
        refused = {call for call, _ in world.refused}
        assert all(call.may for call in refused), "a call was refused that had closed no cycle"
        assert refused.issuperset(call for call in world.calls if call.must), "a cycle stood"
        assert not world.open, "some wait for ever"
        assert all(actor.turn is None for actor in world.actors)

    asyncio.run(go())


async def test_every_call_that_closes_a_cycle_is_refused_while_the_others_stand() -> None:
    """Nothing ends and nothing is given up here: then the youngest call of each cycle has to be the one refused."""
    for size in (1, 2, 3, 7, 40):
        for workers in (1, 2, 3):
            world = World(size, workers)
            calls = [world.call(world.actors[n], world.actors[(n + 1) % size]) for n in range(size)]
            while world.busy_lines:
                world.deliver(*world.busy_lines[-1])
            assert [call for call, _ in world.refused] == [calls[-1]], (size, workers)
            path = world.refused[0][1].split(": ")[1].rstrip(".").split(" -> ")
            assert len(path) == size + 1
            assert path[0] == path[-1] == f"T/{size - 1}"


async def test_a_wide_graph_without_a_cycle_is_searched_once_for_each_actor() -> None:
    layers, width = 8, 8
    world = World(layers * width + 1, 2)
    for layer in range(layers - 1):
        for n in range(width):
            for m in range(width):
                world.call(world.actors[layer * width + n], world.actors[(layer + 1) * width + m])
    world.call(world.actors[-1], world.actors[0])
    delivered = 0
    while world.busy_lines:
        world.deliver(*world.busy_lines[0])
        delivered += 1
    assert not world.refused
    assert delivered < 20_000  # 8 ** 8 paths lead through it
