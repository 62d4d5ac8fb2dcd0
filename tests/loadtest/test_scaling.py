"""The model of throughput: what bounds it, and that it predicts what it is made of."""

from __future__ import annotations

import io

import pytest
from actord.loadtest import scaling
from actord.loadtest.measure import WrkResult
from actord.loadtest.roles import RoleSample
from actord.loadtest.scaling import CELLS, DIRECT, HALF, Costs, best, cell, predicted
from rich.console import Console

FULL, HALVED = Costs(10.0, 20.0, 10.0, 5.0), Costs(12.0, 25.0, 10.0, 5.0)


@pytest.mark.parametrize(
    ("cores", "workers", "fronts", "who", "rate"),
    [
        (1, 1, 1, "all cores", 1e6 / 45),
        (8, 1, 1, "the workers", 50_000),
        (8, 4, 1, "the fronts", 100_000),
        (8, 4, 4, "all cores", 8e6 / 45),
    ],
)
def test_what_saturates_first_bounds_the_calls(cores: int, workers: int, fronts: int, who: str, rate: float) -> None:
    assert FULL.bound(cores, workers, fronts) == (who, pytest.approx(rate))


def test_without_a_front_workers_and_cores_are_the_bounds() -> None:
    assert Costs(0.0, 20.0).bound(4, 2, 0) == ("the workers", 100_000)


def test_fronts_are_enough_for_what_the_workers_get_done() -> None:
    for cores in (1, 2, 4, 16, 64):
        workers, fronts = best(FULL, cores)
        bare = Costs(FULL.front, FULL.worker, 0.0, FULL.kernel)
        assert bare.bound(cores, workers, fronts)[0] == "all cores"
        assert fronts == 1 or bare.bound(cores, workers, fronts - 1)[0] == "the fronts"


def sample(kind: str, costs: Costs, rate: float, neighbours: float = 0.0) -> RoleSample:
    errors = dict.fromkeys(("status", "connect", "read", "write", "timeout"), 0)
    cpu = {"front": costs.front, "worker": costs.worker, "client": costs.client, "kernel": costs.kernel}
    seconds = {role: each * rate * 1e-6 for role, each in cpu.items()} | {"neighbours": neighbours}
    return RoleSample(kind, 64, 0, WrkResult(int(rate), 1.0, errors, 1.0, 1.0, 1.0, 1.0), seconds)


@pytest.mark.parametrize("wrong", [1.0, 1.5])
def test_a_machine_that_is_as_the_model_says_is_predicted(monkeypatch: pytest.MonkeyPatch, wrong: float) -> None:
    """At 0.9 of its bounds; with ``wrong`` one cell is not as the model says, and the report shows it."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    samples = [sample(HALF, HALVED, 30_000), sample(DIRECT, Costs(0.0, 15.0, 3.0, 5.0), 60_000)]
    for workers, fronts in CELLS:
        costs = predicted(FULL, HALVED, workers, fronts)
        rate = 0.9 * costs.bound(2, workers, fronts)[1] / (wrong if (workers, fronts) == (2, 2) else 1.0)
        samples.append(sample(cell(workers, fronts), costs, rate))
    words = io.StringIO()
    worst = scaling.report(samples, scaling.parse([]), Console(file=words, width=200))
    assert worst == pytest.approx(wrong - 1.0, abs=0.01)
    assert "yield 0.90" in words.getvalue()
    assert "Something else" not in words.getvalue()
    assert ("+50%" in words.getvalue()) == (wrong == 1.5)


def test_a_busy_machine_is_told() -> None:
    samples = [sample(kind, FULL, 10_000, neighbours=0.5) for kind in (*(cell(*one) for one in CELLS), HALF, DIRECT)]
    words = io.StringIO()
    scaling.report(samples, scaling.parse([]), Console(file=words, width=200))
    assert "Something else used the machine" in words.getvalue()
