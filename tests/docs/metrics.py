"""The table of metrics on docs/observability.md, out of server/metric_names.py.

python -m tests.docs.metrics         prints it
python -m tests.docs.metrics write   puts it between the page's marks
"""

from __future__ import annotations

import sys

from actord.server.metric_names import METRICS

from tests.docs.pages import ROOT

PAGE = ROOT / "docs" / "observability.md"
BEGIN = "<!-- Table of metrics, out of server/metric_names.py by tests/docs/metrics.py -->"
END = "<!-- end of metrics -->"


def table() -> str:
    lines = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |")
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:] == ["write"]:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.partition(END)[2]}")
    else:
        print(table())
