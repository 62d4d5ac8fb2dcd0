"""From two looks at a server's figures to what happened between them: rates, quantiles, and what is so now.

No I/O here. The result is what ``actord top --json`` prints; docs/observability.md describes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from actord.measures import SECONDS

Look = Mapping[str, Any]  # {"figures": {process: [[name, labels, value], ...]}, "hottest": [...]}
Key = tuple[str, str, tuple[str, ...]]  # process, metric, values of its labels

HOTTEST = 10
METHODS = 10


class Figures:
    """One look, found by metric and process."""

    def __init__(self, look: Look) -> None:
        self.values: dict[Key, Any] = {}
        self.by_metric: dict[str, list[Key]] = {}
        for process, figures in look["figures"].items():
            for name, labels, value in figures:
                key = (process, name, tuple(labels))
                self.values[key] = value
                self.by_metric.setdefault(name, []).append(key)
        self.processes = list(look["figures"])

    def keys(self, name: str, process: str | None = None) -> list[Key]:
        return [key for key in self.by_metric.get(name, ()) if process in (None, key[0])]

    def now(self, name: str, process: str | None = None) -> float:
        return float(sum(self.values[key] for key in self.keys(name, process)))


class Span:
    """What happened in ``seconds`` between two looks. A process that was replaced meanwhile began at zero."""

    def __init__(self, before: Look, after: Look, seconds: float) -> None:
        self.before, self.after, self.seconds = Figures(before), Figures(after), seconds

    def grown(self, key: Key) -> float:
        value, old = self.after.values[key], self.before.values.get(key, 0)
        return float(value - old if value >= old else value)

    def rate(self, name: str, process: str | None = None, *labels: str) -> float:
        """A second. ``labels`` are those that the values must have."""
        keys = self.after.keys(name, process)
        return sum(self.grown(key) for key in keys if {*labels} <= {*key[2]}) / self.seconds

    def buckets(self, keys: Iterable[Key]) -> tuple[list[float], float]:
        """Counts by bucket and the sum, of several histograms with the same bounds."""
        counts: list[float] = [0.0] * (len(SECONDS) + 1)
        total = 0.0
        for key in keys:
            new, new_sum = self.after.values[key]
            old, old_sum = self.before.values.get(key) or ([0] * len(new), 0.0)
            if sum(new) < sum(old):
                old, old_sum = [0] * len(new), 0.0
            counts[: len(new)] = [count + value - was for count, value, was in zip(counts, new, old, strict=False)]
            total += new_sum - old_sum
        return counts, total

    def quantile(self, part: float, name: str, process: str | None = None) -> float | None:
        """Seconds; None when nothing was measured."""
        return quantile(part, self.buckets(self.after.keys(name, process))[0])


def quantile(part: float, counts: list[float]) -> float | None:
    """As Prometheus does it: evenly spread within a bucket; what is beyond the last bound counts as that."""
    wanted = part * sum(counts)
    if not wanted:
        return None
    lower = below = 0.0
    for bound, count in zip(SECONDS, counts, strict=False):
        if below + count >= wanted:
            return lower + (bound - lower) * (wanted - below) / count
        below += count
        lower = bound
    return SECONDS[-1]


def view(before: Look, after: Look, seconds: float) -> dict[str, Any]:
    """What `actord top` shows."""
    span = Span(before, after, seconds)
    return {
        "seconds": round(seconds, 3),
        "calls": _calls(span),
        "processes": [_process(span, process) for process in span.after.processes],
        "methods": _methods(span),
        "instances": {key[2][0]: span.after.values[key] for key in _merged(span.after)},
        "hottest": [
            {"type": type_, "actor": name, "per_second": _short(rate), "over": _short(over), "busy": _short(busy)}
            for type_, name, rate, over, busy in after["hottest"][:HOTTEST]
        ],
    }


def _merged(figures: Figures) -> list[Key]:
    """One key for each type, with the sum over processes as its value."""
    sums: dict[tuple[str, ...], float] = {}
    for key in figures.keys("actord_instances"):
        sums[key[2]] = sums.get(key[2], 0) + figures.values[key]
    merged = [("", "actord_instances", labels) for labels in sorted(sums)]
    figures.values.update({key: sums[key[2]] for key in merged})
    return merged


def _calls(span: Span) -> dict[str, Any]:
    return {
        "per_second": _short(span.rate("actord_calls_total")),
        "refused_per_second": _short(span.rate("actord_calls_total", None, "refused")),
        "failed_per_second": _short(span.rate("actord_calls_total", None, "failed")),
        "turned_away_per_second": _short(span.rate("actord_refused_total")),
        "slow_per_second": _short(span.rate("actord_slow_calls_total")),
        **_quantiles(span, "", "actord_call_seconds"),
        **_quantiles(span, "queue_", "actord_call_queue_seconds"),
        **_quantiles(span, "run_", "actord_call_run_seconds"),
        **_quantiles(span, "commit_", "actord_commit_wait_seconds"),
    }


def _process(span: Span, process: str) -> dict[str, Any]:
    after = span.after
    found: dict[str, Any] = {
        "process": process,
        "up": bool(after.now("actord_up", process)),
        "restarts": int(after.now("actord_restarts_total", process)),
        "cpu": _short(span.rate("actord_process_cpu_seconds_total", process)),
        "memory_bytes": int(after.now("actord_process_resident_memory_bytes", process)),
        "loop_lag_p99_ms": _ms(span.quantile(0.99, "actord_event_loop_lag_seconds", process)),
    }
    if process.startswith("worker"):
        batches = span.rate("actord_commits_total", process)
        in_batches = sum(_difference(span, key) for key in after.keys("actord_batch_calls", process)) / span.seconds
        found |= {
            "calls_per_second": _short(span.rate("actord_calls_total", process)),
            "queued": int(after.now("actord_queued_calls", process)),
            "suspended": int(after.now("actord_suspended_turns", process)),
            "mailbox": int(after.now("actord_mailbox_depth", process)),
            "instances": int(after.now("actord_instances", process)),
            "batches_per_second": _short(batches),
            "calls_per_batch": _short(in_batches / batches) if batches else None,
            "fsync_p50_ms": _ms(span.quantile(0.5, "actord_fsync_seconds", process)),
            "fsync_p99_ms": _ms(span.quantile(0.99, "actord_fsync_seconds", process)),
            "wal_bytes": int(after.now("actord_wal_bytes", process)),
            "database_bytes": int(after.now("actord_database_bytes", process)),
        }
    elif process.startswith("front"):
        found |= {
            "connections": int(after.now("actord_connections", process)),
            "sockets": int(after.now("actord_sockets", process)),
            "calls_under_way": int(after.now("actord_calls_under_way", process)),
            "received_bytes_per_second": _short(span.rate("actord_received_bytes_total", process)),
            "sent_bytes_per_second": _short(span.rate("actord_sent_bytes_total", process)),
        }
    return found


def _difference(span: Span, key: Key) -> float:
    """How much the sum of a histogram has grown."""
    new = float(span.after.values[key][1])
    old = float((span.before.values.get(key) or ([], 0.0))[1])
    return new - old if new >= old else new


def _methods(span: Span) -> list[dict[str, Any]]:
    groups: dict[tuple[str, ...], list[Key]] = {}
    for key in span.after.keys("actord_call_run_seconds"):
        groups.setdefault(key[2], []).append(key)
    found = []
    for (type_, method), keys in groups.items():
        counts, ran = span.buckets(keys)
        calls = sum(counts)
        if calls:
            found.append(
                {
                    "type": type_,
                    "method": method,
                    "per_second": _short(calls / span.seconds),
                    "failed_per_second": _short(span.rate("actord_calls_total", None, type_, method, "failed")),
                    "run_p50_ms": _ms(quantile(0.5, counts)),
                    "run_p99_ms": _ms(quantile(0.99, counts)),
                    "busy": _short(ran / span.seconds),
                }
            )
    return sorted(found, key=lambda one: -float(one["per_second"]))[:METHODS]  # type: ignore[arg-type]


def _quantiles(span: Span, prefix: str, name: str) -> dict[str, float | None]:
    counts, _ = span.buckets(span.after.keys(name))
    return {f"{prefix}p50_ms": _ms(quantile(0.5, counts)), f"{prefix}p99_ms": _ms(quantile(0.99, counts))}


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _short(value: float) -> float:
    return round(value, 3)
