"""The open loop does not slow down with its server: what is late counts from the instant at which it was due."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from actord.loadtest import openloop, overload_report
from actord.loadtest.openloop import Outcome, Pauses, Plan, Seen, Stream, bucket, percentile_ms
from actord.loadtest.overload_report import Offered, Result

PATIENCE = 60.0  # a generator that has to wait for a core on a busy machine counts all the same
PATH = "/actors/Account/a%d/deposit"


def run(plan: Plan) -> Outcome:
    command = [sys.executable, "-m", "actord.loadtest.openloop"]
    done = subprocess.run(
        command, input=json.dumps(asdict(plan)), capture_output=True, text=True, timeout=60, check=True
    )
    return openloop.from_json(done.stdout)


def test_calls_are_due_at_the_rate_of_their_stream_whatever_the_server_does() -> None:
    streams = [Stream("often", 900, PATH, 10), Stream("seldom", 100, "/x")]
    calls = openloop.due_instants(streams, 20, random.Random(1))
    assert [due for due, _, _ in calls] == sorted(due for due, _, _ in calls)
    counts = [sum(number == stream for _, number, _ in calls) for stream in (0, 1)]
    assert counts == [pytest.approx(18_000, rel=0.03), pytest.approx(2_000, rel=0.08)]
    assert len({request for _, number, request in calls if number == 0}) == 10
    assert calls == openloop.due_instants(streams, 20, random.Random(1))


def test_percentiles_are_within_one_percent() -> None:
    histogram: dict[int, int] = {}
    for milliseconds in range(1, 1001):
        key = bucket(milliseconds / 1e3)
        histogram[key] = histogram.get(key, 0) + 1
    assert percentile_ms(histogram, 0.5) == pytest.approx(500, rel=0.01)
    assert percentile_ms(histogram, 0.99) == pytest.approx(990, rel=0.01)
    assert percentile_ms({}, 0.5) is None


def test_what_waits_for_a_server_that_stands_still_is_late_and_each_call_of_it(bank: Any) -> None:
    plan = Plan(bank.port, 1, [Stream("all", 200, PATH, 5)], connections=2, warm_up=0, pause=PATIENCE)

    def stand_still() -> None:
        with bank.lock:
            began.set()
            while not bank.seen:
                came.wait(0.01)
            came.wait(0.6)

    began, came = Event(), Event()
    (still := Thread(target=stand_still)).start()
    began.wait()
    seen = run(plan).streams["all"]
    still.join()
    due = [at for at, _, _ in openloop.due_instants(plan.streams, plan.seconds, random.Random(plan.seed))]
    must_be_late = sum(at < due[0] + 0.5 for at in due)
    # With two connections a closed loop would have made two calls, and called all others quick.
    assert must_be_late > 50
    assert sum(count for key, count in seen.answered.items() if key > bucket(0.09)) >= must_be_late
    assert sum(seen.answered.values()) == seen.due == len(due) == sum(bank.balances.values())
    assert seen.failed == 0


def test_goodput_is_every_answer_of_the_seconds_that_count_however_long_it_took() -> None:
    """Else a queue of 0.3 s would cost a server three tenths of its goodput in a run of one second."""
    loop = openloop.Generator(Plan(0, 2, [Stream("all", 1000, PATH, 5)], warm_up=1))
    for number, (due, _, _) in enumerate(loop._calls):
        loop._ended[number], loop._status[number] = due + 0.3, 200
    outcome = loop._outcome(2.3, 0.1, len(loop._calls))
    came = sum(1 <= due + 0.3 < 2 for due, _, _ in loop._calls)
    assert outcome.streams["all"].in_window == came
    assert Offered.of(100, outcome, "all").goodput == came == pytest.approx(1000, rel=0.1)


def test_only_time_in_which_it_neither_slept_nor_worked_counts_as_a_pause() -> None:
    pauses = Pauses()
    pauses.note(0.0, 5.0, 0.0)
    pauses.note(1.0, 5.01, 0.9995)  # slept
    pauses.note(1.2, 5.2095, 0.0)  # worked
    pauses.note(1.25, 5.21, 0.05)  # slept less than it was going to
    assert pauses.spans == []
    pauses.note(1.3, 5.2105, 0.0)
    pauses.note(1.4, 5.2205, 0.05)
    assert pauses.spans == [(1.25, 1.3), (1.3, 1.4)]
    assert pauses.total() == pytest.approx(0.15)
    assert [pauses.during(*span) for span in ((0, 1.25), (0, 1.26), (1.28, 1.29), (1.31, 9), (1.4, 2))] == [
        False,
        True,
        True,
        True,
        False,
    ]


def test_a_call_that_was_under_way_while_the_generator_had_no_core_counts_but_has_no_latency() -> None:
    loop = openloop.Generator(Plan(0, 2, [Stream("all", 1000, PATH, 5)], warm_up=0))
    for number, (due, _, _) in enumerate(loop._calls):
        slow = 0.97 <= due < 1.0
        loop._ended[number] = 1.01 if slow else due + 0.001
        loop._status[number] = 503 if slow or number % 2 else 200
    loop._pauses.spans.append((1.0, 1.01))
    seen = loop._outcome(2.1, 0.1, len(loop._calls)).streams["all"]
    hidden = sum(due < 1.01 and ended > 1.0 for (due, _, _), ended in zip(loop._calls, loop._ended, strict=True))
    assert hidden > 20
    assert sum(seen.answered.values()) + sum(seen.refused.values()) == seen.due - hidden
    assert seen.refusals == sum(status == 503 for status in loop._status) > sum(seen.refused.values())
    assert max(*seen.answered, *seen.refused) <= bucket(0.0011)


def test_refusals_and_failures_are_told_apart_from_answers(bank: Any) -> None:
    plan = Plan(bank.port, 0.5, [Stream("all", 100, PATH, 5)], connections=5, warm_up=0, pause=PATIENCE)
    bank.status = 503
    seen = run(plan).streams["all"]
    assert sum(seen.refused.values()) == seen.due == seen.unpolite, "they say neither Retry-After nor applied: no"
    assert (seen.answered, seen.failed, seen.applied, seen.uncertain) == ({}, 0, 0, 0)
    bank.status = 500
    seen = run(plan).streams["all"]
    assert (seen.failed, seen.uncertain) == (seen.due, seen.due)


def test_generators_that_ran_together_count_as_one() -> None:
    seen = [Seen(10, {3: 1, 4: 2}, {5: 1}, 1, 2, 1, 3, 1, 2) for _ in range(2)]
    parts = [Outcome(5, 6, 0.5, 10, lag, 9 - lag, {"all": each}) for lag, each in zip((1.0, 7.0), seen, strict=True)]
    whole = openloop.merge(openloop.from_json(openloop.to_json(part)) for part in parts)
    assert (whole.sent, whole.lag_ms, whole.paused_ms, whole.core) == (20, 7.0, 8.0, 0.5)
    assert whole.streams["all"] == Seen(20, {3: 2, 4: 4}, {5: 2}, 2, 4, 2, 6, 2, 4)


def offered(share: int, goodput: float, p99: float = 200, refused_p99: float | None = None) -> Offered:
    return Offered(share, share * 10, goodput, 0, 0, 0, 1, p99, None, refused_p99, 0.1, 0.0, 0.2)


def result(*runs: Offered, alone: float = 5, beside: float = 5) -> Result:
    found = Result("x", 1000, 1000, list(runs))
    found.alone, found.beside, found.hot = [offered(0, 1, alone)], [offered(0, 1, beside)], [offered(200, 1000)]
    return found


def missed(found: Result) -> list[str]:
    return [figure.name for figure in overload_report.figures(found) if not figure.reached]


def test_each_figure_is_missed_by_itself() -> None:
    good = offered(100, 1000), offered(150, 950, 210, 5), offered(200, 900, 220, 9)
    assert missed(result(*good)) == []
    assert missed(result(*good[:2], offered(200, 890, 220, 9))) == ["goodput over 100 %, of its peak"]
    assert missed(result(*good[:2], offered(200, 900, 501, 9))) == ["answers over 100 %, p99 ms"]
    assert missed(result(*good[:2], offered(200, 900, 220, 51))) == ["refusals over 100 %, p99 ms"]
    assert missed(result(*good, beside=10.1)) == ["others beside a hot name, times their p99"]


def test_a_plot_is_drawn_of_each_method(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    runs = [offered(share, 900, 200, 5 if share > 100 else None) for share in (50, 100, 200)]
    overload_report.plot({"work": result(*runs), "debit": result(*runs)}, tmp_path / "a" / "plot.svg")
    assert (tmp_path / "a" / "plot.svg").read_text().count("refused, p99") == 2
