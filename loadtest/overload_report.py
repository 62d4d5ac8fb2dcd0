"""From the outcomes of open loops to a table, figures to reach, and a plot. Only arithmetic and words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from actord.loadtest.openloop import Outcome, percentile_ms
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

GOODPUT_SHARE = 0.9
REFUSED_MS = 50.0
# What is let in waits for 0.2 s by default (runtime.queue_target), and may be measured in a bad moment.
ACCEPTED_MS = 500.0
OTHERS_TIMES = 2.0


@dataclass(frozen=True, slots=True)
class Offered:
    """One stream of one run. Rates are per second; latencies in milliseconds, None where there was none."""

    share: int  # of the capacity, in percent
    due: float
    goodput: float
    refused: float
    failed: int
    unpolite: int
    p50_ms: float | None
    p99_ms: float | None
    refused_p50_ms: float | None
    refused_p99_ms: float | None
    lag_ms: float
    paused_ms: float  # in which the generator had no core: what was under way then is in no percentile
    core: float

    @classmethod
    def of(cls, share: int, outcome: Outcome, label: str) -> Offered:
        seen, seconds = outcome.streams[label], outcome.seconds
        return cls(
            share,
            seen.due / seconds,
            seen.in_window / seconds,
            seen.refusals / seconds,
            seen.failed,
            seen.unpolite,
            percentile_ms(seen.answered, 0.5),
            percentile_ms(seen.answered, 0.99),
            percentile_ms(seen.refused, 0.5),
            percentile_ms(seen.refused, 0.99),
            outcome.lag_ms,
            outcome.paused_ms,
            outcome.core,
        )

    def words(self) -> str:
        refused = f", refused {self.refused:,.0f}/s in {_ms(self.refused_p99_ms)} ms (p99)" if self.refused else ""
        return (
            f"{f'{self.share:3} %, ' if self.share else ''}due {self.due:,.0f}/s: answered {self.goodput:,.0f}/s in "
            f"{_ms(self.p50_ms)} / {_ms(self.p99_ms)} ms{refused}, failed {self.failed}; "
            f"generator {self.core:.2f} core, lag {self.lag_ms:.1f} ms, paused for {self.paused_ms:.0f} ms"
        )


@dataclass(slots=True)
class Result:
    """One method: its capacities in a closed loop, and all rounds."""

    what: str
    capacity: float
    hot_capacity: float
    offered: list[Offered] = field(default_factory=list)
    alone: list[Offered] = field(default_factory=list)
    beside: list[Offered] = field(default_factory=list)
    hot: list[Offered] = field(default_factory=list)

    def shares(self) -> dict[int, Offered]:
        """Medians over the rounds."""
        groups: dict[int, list[Offered]] = {}
        for run in self.offered:
            groups.setdefault(run.share, []).append(run)
        return {share: middle(group) for share, group in groups.items()}

    @property
    def faults(self) -> int:
        """Calls without an answer, and refusals that do not say what they should."""
        return sum(run.failed + run.unpolite for run in (*self.offered, *self.alone, *self.beside, *self.hot))


def middle(runs: Sequence[Offered]) -> Offered:
    """The median of each figure; failures are added up."""

    def of(name: str) -> float | None:
        found = [value for run in runs if (value := getattr(run, name)) is not None]
        return median(found) if found else None

    sums = {"failed": sum(run.failed for run in runs), "unpolite": sum(run.unpolite for run in runs)}
    others = [name for name in Offered.__slots__ if name not in ("share", *sums)]
    return Offered(share=runs[0].share, **sums, **{name: of(name) for name in others})  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Figure:
    name: str
    value: float | None
    limit: float
    at_least: bool = False

    @property
    def reached(self) -> bool:
        """A figure without a value: there was nothing to measure, such as no refusal, and nothing is wrong with it."""
        return self.value is None or (self.value >= self.limit if self.at_least else self.value <= self.limit)


def figures(result: Result) -> list[Figure]:
    """What issue and README promise of one method."""
    shares = result.shares()
    peak = max(run.goodput for run in shares.values())
    over = [run for share, run in shares.items() if share > 100]

    def worst(name: str) -> float | None:
        return max((value for run in over if (value := getattr(run, name)) is not None), default=None)

    alone, beside = middle(result.alone).p99_ms, middle(result.beside).p99_ms
    return [
        Figure("goodput over 100 %, of its peak", min(run.goodput for run in over) / peak, GOODPUT_SHARE, True),
        Figure("refusals over 100 %, p99 ms", worst("refused_p99_ms"), REFUSED_MS),
        Figure("answers over 100 %, p99 ms", worst("p99_ms"), ACCEPTED_MS),
        Figure("calls that failed, or were refused without Retry-After and `applied: no`", result.faults, 0),
        Figure("others beside a hot name, times their p99", beside / alone if beside and alone else None, OTHERS_TIMES),
    ]


def show(console: Console, results: Mapping[str, Result]) -> list[Figure]:
    """Tables as Markdown. Out: the figures that were missed."""
    missed: list[Figure] = []
    for method, result in results.items():
        console.print(f"{method}: {result.what}; {result.capacity:,.0f} calls/s in a closed loop\n")
        grid = Table(box=MARKDOWN)
        grid.add_column("offered")
        for title in ("due/s", "answered/s", "p50 / p99 ms", "refused/s", "p50 / p99 ms"):
            grid.add_column(title, justify="right")
        rows = {f"{share} %": run for share, run in result.shares().items()}
        rows["others, alone"], rows["others, beside a hot name"] = middle(result.alone), middle(result.beside)
        rows["that hot name, 200 %"] = middle(result.hot)
        for label, run in rows.items():
            grid.add_row(
                label,
                f"{run.due:,.0f}",
                f"{run.goodput:,.0f}",
                f"{_ms(run.p50_ms)} / {_ms(run.p99_ms)}",
                f"{run.refused:,.0f}",
                f"{_ms(run.refused_p50_ms)} / {_ms(run.refused_p99_ms)}" if run.refused else "",
            )
        console.print(grid)
        grid = Table(box=MARKDOWN)
        for title in ("figure", "measured", "wanted", "reached"):
            grid.add_column(title, justify="left" if title == "figure" else "right")
        for figure in figures(result):
            value = "–" if figure.value is None else f"{figure.value:.2f}"
            wanted = f"{'≥' if figure.at_least else '≤'} {figure.limit:g}"
            grid.add_row(figure.name, value, wanted, "yes" if figure.reached else "NO")
            if not figure.reached:
                missed.append(figure)
        console.print(grid)
    return missed


def plot(results: Mapping[str, Result], target: Path) -> None:
    """Goodput and refusals beside what was offered, and p99, one column for each method."""
    # It costs half a second to load: only here.
    from actord.loadtest.plots import figure, save

    drawing, axes = figure(rows=2, columns=len(results))
    for column, (method, result) in enumerate(results.items()):
        rates, times = (axes[0][column], axes[1][column]) if len(results) > 1 else axes
        shares = result.shares()
        offered = list(shares)
        rates.set_title(f"{method}: {result.what}")
        rates.plot(offered, [run.due for run in shares.values()], color="0.7", linestyle=":", label="offered")
        rates.plot(offered, [run.goodput for run in shares.values()], marker="o", label="answered")
        rates.plot(offered, [run.refused for run in shares.values()], marker="o", label="refused, 503")
        rates.set_ylabel("calls/s")
        times.plot(offered, [run.p99_ms or 0.0 for run in shares.values()], marker="o", label="answered, p99")
        times.plot(offered, [run.p50_ms or 0.0 for run in shares.values()], marker="o", label="answered, p50")
        refusals = [(share, run.refused_p99_ms) for share, run in shares.items() if run.refused_p99_ms is not None]
        if refusals:
            times.plot(*zip(*refusals, strict=True), marker="o", label="refused, p99")
        times.set_ylabel("ms from the instant it was due")
        times.set_xlabel("offered, % of the capacity")
    target.parent.mkdir(parents=True, exist_ok=True)
    save(drawing, target)


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:,.1f}"
