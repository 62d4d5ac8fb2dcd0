"""The report: one table of figures, what was violated, and how to repeat each part."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from pathlib import Path

from tests.proof.part import Result


def write(path: Path, seed: int, seconds: float, results: dict[str, Result]) -> None:
    violations = sum(len(result.wrong) for result in results.values())
    lines = [
        "# Proof report",
        "",
        f"Seed {seed}, a budget of {seconds:g} s; the parts took "
        f"{sum(part.seconds for part in results.values()):.0f} s, up to three at a time; "
        f"commit {_commit()}, {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC; Linux {platform.release()}, "
        f"Python {platform.python_version()}, {len(os.sched_getaffinity(0))} cores.",
        "",
        f"**{violations} violations.**" if violations else "**No violation.**",
        "",
        "| part | figure | value |",
        "|---|---|---|",
    ]
    for name, result in results.items():
        if result.skipped:
            lines.append(f"| {name} | skipped | {result.skipped} |")
        for label, value in result.figures.items():
            lines.append(
                f"| {name} | {label} | {value:,} |" if type(value) is int else f"| {name} | {label} | {value} |"
            )
        if not result.skipped:
            lines.append(f"| {name} | violations | {len(result.wrong)} |")
    for name, result in results.items():
        if result.wrong:
            lines += ["", f"## What {name} violated", ""]
            lines += [f"* {line[:2000]}" for line in result.wrong[:50]]
        if result.notes:
            lines += ["", f"## {name}", "", *[f"* {note}" for note in result.notes]]
    lines += ["", "## Again", "", f"    python -m tests.proof --only PART --seed {seed} --seconds {seconds:g}", ""]
    path.write_text("\n".join(lines))


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
