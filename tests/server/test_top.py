"""From two looks at a server's figures to rates and quantiles, and to what a person sees."""

from __future__ import annotations

from typing import Any

import pytest
from actord.measures import SECONDS
from actord.server.commands.top_numbers import quantile, view
from actord.server.commands.top_view import text


def histogram(**counts: int) -> list[Any]:
    """``b3=5``: five in the bucket number 3. The sum is not looked at here."""
    found = [0] * (len(SECONDS) + 1)
    for bucket, count in counts.items():
        found[int(bucket[1:])] = count
    return [found, 1.0 * sum(found)]


def look(calls: int, run: list[Any], *, cpu: float = 0.0, hottest: Any = ()) -> dict[str, Any]:
    return {
        "figures": {
            "supervisor": [["actord_up", [], 1]],
            "worker-0": [
                ["actord_up", [], 1],
                ["actord_process_cpu_seconds_total", [], cpu],
                ["actord_calls_total", ["T", "m", "ok"], calls],
                ["actord_calls_total", ["T", "m", "failed"], calls // 10],
                ["actord_call_run_seconds", ["T", "m"], run],
                ["actord_call_seconds", [], run],
                ["actord_commits_total", ["0"], 1_000 + calls // 2],
                ["actord_batch_calls", [], [[calls // 2, *[0] * 12], float(calls)]],
                ["actord_instances", ["T"], 7],
            ],
            "worker-1": [["actord_up", [], 0], ["actord_restarts_total", [], 3]],
        },
        "hottest": hottest,
    }


def test_rates_are_what_has_grown_between_two_looks() -> None:
    before, after = look(100, histogram(b3=100), cpu=1.0), look(300, histogram(b3=300), cpu=2.0)
    found = view(before, after, 2.0)
    assert found["calls"]["per_second"] == 110  # 200 and 20 in two seconds
    assert found["calls"]["failed_per_second"] == 10
    [_, worker, away] = found["processes"]
    assert (worker["cpu"], worker["calls_per_second"], worker["instances"]) == (0.5, 110, 7)
    assert (worker["batches_per_second"], worker["calls_per_batch"]) == (50, 2)
    assert (away["up"], away["restarts"]) == (False, 3)
    assert found["instances"] == {"T": 7}
    [method] = found["methods"]
    assert (method["per_second"], method["busy"]) == (100, 100)


def test_a_process_that_began_anew_counts_from_zero() -> None:
    found = view(look(1_000, histogram(b3=1_000), cpu=50.0), look(40, histogram(b3=40), cpu=0.5), 1.0)
    assert found["calls"]["per_second"] == 44
    assert found["processes"][1]["cpu"] == 0.5
    assert found["methods"][0]["per_second"] == 40


def test_quantiles_are_of_what_came_between_and_not_of_all_that_ever_was() -> None:
    before = look(0, histogram(b0=10_000))
    after = look(0, histogram(b0=10_000, b9=100))
    run = view(before, after, 1.0)["methods"][0]
    assert SECONDS[8] * 1000 < run["run_p50_ms"] < SECONDS[9] * 1000
    assert run["run_p99_ms"] == pytest.approx((SECONDS[8] + (SECONDS[9] - SECONDS[8]) * 0.99) * 1000)


@pytest.mark.parametrize(
    ("counts", "part", "expected"),
    [
        (histogram()[0], 0.5, None),
        (histogram(b0=10)[0], 0.5, SECONDS[0] / 2),
        (histogram(b0=1, b17=99)[0], 0.99, SECONDS[-1]),
        (histogram(b2=4, b4=4)[0], 0.5, SECONDS[2]),
    ],
)
def test_a_quantile_lies_within_its_bucket(counts: list[float], part: float, expected: float | None) -> None:
    assert quantile(part, counts) == (None if expected is None else pytest.approx(expected))


def test_what_is_shown_is_escaped_and_leaves_out_actors_that_are_guessed() -> None:
    hottest = [["T", "evil\x1b[31m\n", 50.0, 1.0, 0.5], ["T", "guessed", 9.0, 8.0, 0.0]]
    found = view(look(0, histogram()), look(10, histogram(b1=10), hottest=hottest), 1.0)
    shown = text(found)
    assert "T/evil\\x1b[31m\\n" in shown
    assert "\x1b" not in shown
    assert "guessed" not in shown
    assert [one["actor"] for one in found["hottest"]] == ["evil\x1b[31m\n", "guessed"]
    assert all(len(line) <= 100 for line in shown.splitlines())
    assert "away" in next(line for line in shown.splitlines() if line.startswith("worker-1"))
