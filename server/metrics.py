"""The metrics of a whole server: gathered from its processes when somebody asks, and written as Prometheus reads them.

1. The supervisor gathers and writes: no loop that serves calls is held up by it. Each worker and front says its own
   numbers over its control line; what the system knows of a process is read here.
2. A process that does not answer within ``ANSWER_SECONDS`` is left out, and ``actord_up`` says so.
3. Questions that come while one is being answered get the same answer.
"""

from __future__ import annotations

import asyncio
import os
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import actord
from actord.server.metric_names import METRICS, Metric

if TYPE_CHECKING:
    from actord.measures import Figure
    from actord.server.children import Child
    from prometheus_client.metrics_core import Metric as Family

ANSWER_SECONDS = 2.0

Figures = Mapping[str, Sequence["Figure"]]  # by process


class ServerMetrics:
    """The supervisor's; ``children`` are the workers and fronts."""

    def __init__(self, children: Iterable[Child]) -> None:
        self._children = list(children)
        self._gathering: asyncio.Task[dict[str, list[Figure]]] | None = None

    async def gather(self) -> dict[str, list[Figure]]:
        """The figures of all processes, by their names. Never raises."""
        task = self._gathering
        if task is None or task.done():
            task = self._gathering = asyncio.create_task(self._gather())
        return await asyncio.shield(task)

    async def exposition(self, request: dict[str, Any]) -> dict[str, str]:
        """``{"accept": the header's value}`` -> ``{"type": media type, "text": ...}``."""
        figures = await self.gather()
        kind, text = await asyncio.to_thread(partial(expose, figures, str(request.get("accept") or "")))
        return {"type": kind, "text": text.decode()}

    async def top(self, request: dict[str, Any]) -> dict[str, Any]:
        """``{}`` -> ``{"figures": by process, "hottest": [[type, name, calls/s, too many, busy], ...]}``."""
        figures, *answers = await asyncio.gather(
            self.gather(), *(_ask(child, "hottest") for child in self._children if child.name.startswith("worker"))
        )
        hottest = [one for answer in answers for one in answer or ()]
        return {"figures": figures, "hottest": sorted(hottest, key=lambda one: -one[2])}

    async def _gather(self) -> dict[str, list[Figure]]:
        answers = await asyncio.gather(*(_ask(child, "metrics") for child in self._children))
        found: dict[str, list[Figure]] = {
            "supervisor": [
                ("actord_build_info", (actord.__version__, platform.python_version()), 1),
                ("actord_up", (), 1),
                *process_figures(os.getpid()),
            ]
        }
        for child, answer in zip(self._children, answers, strict=True):
            found[child.name] = [
                ("actord_up", (), int(answer is not None)),
                ("actord_restarts_total", (), child.deaths),
                *process_figures(child.pid),
                *(answer or ()),
            ]
        return found


async def _ask(child: Child, what: str) -> list[Any] | None:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            answer = await child.ask({"do": what})
    except TimeoutError:
        return None
    value: list[Any] | None = answer.get("value")
    return value


def process_figures(pid: int | None) -> list[Figure]:
    """What the system knows of a process; nothing of one that is away."""
    import psutil

    if pid is None:
        return []
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            return [
                ("actord_process_start_time_seconds", (), process.create_time()),
                ("actord_process_cpu_seconds_total", (), times.user + times.system),
                ("actord_process_resident_memory_bytes", (), process.memory_info().rss),
                ("actord_process_open_fds", (), process.num_fds()),
            ]
    except psutil.Error:
        return []


def expose(figures: Figures, accept: str) -> tuple[str, bytes]:
    """The media type and the text for a scraper that accepts this: OpenMetrics when it asks for it."""
    from prometheus_client.exposition import choose_encoder

    encoder, kind = choose_encoder(accept)
    return kind, encoder(_Collector(figures))


class _Collector:
    """What the encoders of prometheus_client ask."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Family]:
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        by_name: dict[str, list[tuple[list[str], Any]]] = {metric.name: [] for metric in METRICS}
        for process, figures in self._figures.items():
            for name, own, value in figures:
                by_name[name].append(([process, *own], value))
        for metric in METRICS:
            labels = ["process", *metric.labels]
            if metric.kind == "histogram":
                histogram = HistogramMetricFamily(metric.name, metric.help, labels=labels)
                for at, (counts, total) in by_name[metric.name]:
                    histogram.add_metric(at, _cumulative(metric, counts), total)
                yield histogram
                continue
            family = (CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily)(
                metric.name, metric.help, labels=labels
            )
            for at, value in by_name[metric.name]:
                family.add_metric(at, value)
            yield family


def _cumulative(metric: Metric, counts: Sequence[int]) -> list[tuple[str, float]]:
    bounds = [*(f"{float(bound):g}" for bound in metric.bounds), "+Inf"]
    return list(zip(bounds, accumulate(counts), strict=True))
