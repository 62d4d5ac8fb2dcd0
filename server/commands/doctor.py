"""``actord doctor``: a data directory on which no server runs, and the machine under it.

The work is done by ``storage.doctor``, ``storage.doctor_disk`` and ``server.machine``; this is what is shown of it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from actord.errors import DataDirError, DataDirLocked
from actord.server.commands.progress import shown
from actord.server.config import resolve
from actord.server.exits import CONFIG, FAILED, StartError
from actord.server.program import PROJECT_FILE
from actord.settings import Settings
from actord.shards.slots import slot_of, slot_range

if TYPE_CHECKING:
    from actord.storage.findings import Check, Finding, Report
    from rich.text import Text

STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}


def doctor(
    data_dir: Annotated[
        Path | None,
        typer.Argument(
            metavar="DATA_DIR", help="The data directory; without it that of the project here.", show_default=False
        ),
    ] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Check each actor's SQL database, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Examine a data directory and the machine under it, and say what is wrong and what to do.

    Examples:

        actord doctor
        actord doctor --deep /var/lib/shop
        actord doctor --json /var/lib/shop | jq .findings

    Data is examined while no server runs on it; the machine at any time. It
    changes nothing. Exit code 0: nothing is wrong with what could be
    examined, 1: there is damage or a problem, 78: not a data directory.
    """
    settings, place = _place(data_dir)
    report, why = _examine(place, deep, as_json, known=data_dir is not None)
    checks = _checks(place, settings, None if report is None else report.shards)
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(document(place, report, why, checks)), indent=2).decode())
    else:
        _show(report, why, checks)
    if (report is not None and report.damaged) or any(check.level == "problem" for check in checks):
        raise typer.Exit(FAILED)


def _place(data_dir: Path | None) -> tuple[Settings | None, str]:
    """The settings, if there is a project here, and the folder to look at."""
    if data_dir is not None:
        return None, str(data_dir)
    if Path(PROJECT_FILE).is_file():
        settings = resolve()
        return settings, settings.server.data_dir
    return None, os.getcwd()


def _examine(place: str, deep: bool, as_json: bool, *, known: bool) -> tuple[Report | None, str]:
    """The report on the data; or None, and why nothing was examined."""
    from actord.storage.doctor import examine  # the store's modules, which no other command needs

    if not known and not os.path.exists(os.path.join(place, "manifest.json")):
        return None, f"There is no data in {place}: the machine alone is examined."
    try:
        with shown(not as_json and sys.stderr.isatty()) as told:
            return examine(place, slot_of=slot_of, slot_range=slot_range, deep=deep, progress=told), ""
    except DataDirLocked as error:
        return None, f"The data was not examined. {error.detail}"
    except DataDirError as error:
        raise StartError(error.detail, CONFIG) from None


def _checks(place: str, settings: Settings | None, shards: int | None) -> list[Check]:
    from actord.server.machine import machine_checks
    from actord.storage.doctor_disk import disk_checks

    place = os.path.abspath(place)
    while not os.path.isdir(place):  # a data directory that is not made yet
        place = os.path.dirname(place)
    return [*disk_checks(place), *machine_checks(settings, shards)]


def document(place: str, report: Report | None, why: str, checks: list[Check]) -> dict[str, Any]:
    """The JSON. ``healthy`` is null when the data was not examined, for the reason in ``not_examined``."""
    from actord.storage.findings import Report

    problem = (report is not None and report.damaged) or any(check.level == "problem" for check in checks)
    return {
        "healthy": False if problem else True if report is not None else None,
        "not_examined": why,
        **msgspec.to_builtins(report or Report(path=os.path.realpath(place))),
        "checks": msgspec.to_builtins(checks),
    }


def _show(report: Report | None, why: str, checks: list[Check]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=False)
    for line in [one_line(why)] if report is None else lines(report):
        print(line)
    table = Table.grid(padding=(0, 2))
    for check in checks:
        table.add_row(Text(check.level, style=STYLES[check.level]), check.name, _words(check))
    with console.capture() as drawn:
        console.print(table)
    print("\n".join(line.rstrip() for line in drawn.get().splitlines()))
    print(outcome(report, checks))


def _words(check: Check) -> Text:
    from rich.text import Text

    text = Text(one_line(check.what))
    if check.todo:
        text.append(f"\n{one_line(check.todo)}", style="italic")
    return text


def lines(report: Report) -> list[str]:
    """What was found in the data, as lines of text for a person."""
    shards = f"{report.shards} shard" + ("" if report.shards == 1 else "s")
    found = [f"{report.path}: {shards}, {report.actors:,} actors, {report.rows:,} rows with checksums"]
    for finding in report.findings:
        if finding.level == "damage":
            found += _told("DAMAGE", finding)
    for finding in report.findings:
        if finding.level == "note":
            found += _told("note", finding)
    return found


def outcome(report: Report | None, checks: list[Check]) -> str:
    """All of it in a few words."""
    parts = []
    damage = 0 if report is None else sum(finding.level == "damage" for finding in report.findings)
    if damage:
        parts.append(f"damaged: {damage} finding" + ("" if damage == 1 else "s"))
    problems = sum(check.level == "problem" for check in checks)
    if problems:
        parts.append(f"{problems} problem" + ("" if problems == 1 else "s") + " of the machine")
    return "; ".join(parts) or ("healthy" if report is not None else "the machine is fine")


def _told(word: str, finding: Finding) -> list[str]:
    place = f" {finding.file}:" if finding.file else ""
    said = [f"{word}{place} {one_line(finding.what)}"]
    return [*said, f"    {one_line(finding.todo)}"] if finding.todo else said


def one_line(text: str) -> str:
    """Damaged names may hold anything: no control characters reach a terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
