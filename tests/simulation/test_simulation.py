"""The worker's core under hundreds of orders of events. The long version: ``python -m tests.simulation``."""

from __future__ import annotations

import os

from tests.simulation.loop import virtual_clocks
from tests.simulation.planted import PLANTED
from tests.simulation.run import Result, play, run

SEEDS = int(os.environ.get("ACTORD_TEST_SEEDS", "120"))


def test_every_order_of_events_keeps_the_promises_and_every_planted_bug_is_caught() -> None:
    told: list[int] = []

    def progress(done: int, result: Result) -> None:
        told.append(done)

    result = run(range(SEEDS), progress)
    assert result.violations == []
    assert result.planted_missed == []
    assert sorted(result.planted_caught) == sorted(PLANTED)
    assert told == list(range(1, SEEDS + 1))
    assert result.operations > 50 * SEEDS
    assert result.answered > result.operations * 0.8
    assert result.crashes > SEEDS // 3


def test_a_seed_goes_the_same_way_every_time() -> None:
    with virtual_clocks():
        for seed in range(8):
            first, second = play(seed), play(seed)
            assert [(op.key, op.answer) for op in first.ops.values()] == [
                (op.key, op.answer) for op in second.ops.values()
            ]
            assert first.disk.rows == second.disk.rows
            assert first._now == second._now


def test_the_seeds_meet_what_they_are_meant_to_meet() -> None:
    """Every kind of outcome occurs: a simulation without faults would find nothing."""
    answers = {"yes": 0, "no": 0, "unknown": 0}
    alarms = sql = 0
    with virtual_clocks():
        for seed in range(30):
            world = play(seed)
            for op in world.ops.values():
                answers[op.answer] += 1
            for rows in world.disk.rows.values():
                alarms += sum(key.startswith("fired/") for key in rows)
                sql += "sql" in rows
    assert answers["yes"] > 800
    assert answers["no"] > 300
    assert answers["unknown"] > 20
    assert alarms > 50
    assert sql > 30
