"""The report of one call's latency beside the disk's."""

from __future__ import annotations

import io

from actord.loadtest.bench_latency import CALL, DISK, HELLO, report
from rich.console import Console


def test_the_ratios_are_of_medians_over_rounds() -> None:
    out = io.StringIO()
    found = {
        DISK: [(0.2, 1.0), (0.1, 9.0), (0.3, 2.0)],
        CALL: [(0.3, 3.0), (0.4, 2.0), (9.0, 1.0)],
        HELLO: [(0.05, 0.1)],
    }
    assert [round(ratio, 3) for ratio in report(found, Console(file=out, width=120))] == [2.0, 1.0]
    assert (
        "| durable call, 1 connection |   0.40 |   2.00 |                  2.00 |                  1.00 |"
        in out.getvalue()
    )
