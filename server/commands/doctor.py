"""``actord doctor``: examine a data directory on which no server runs. The work is done by ``storage.doctor``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from actord.errors import DataDirError, DataDirLocked
from actord.server.exits import CONFIG, FAILED, TEMPORARY, StartError
from actord.server.progress import shown
from actord.shards.slots import slot_of, slot_range

if TYPE_CHECKING:
    from actord.storage.findings import Finding, Report


def doctor(
    data_dir: Annotated[Path, typer.Argument(metavar="DATA_DIR", help="The data directory.", show_default=False)],
    deep: Annotated[bool, typer.Option("--deep", help="Check each actor's SQL database, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Examine a data directory on which no server runs, and say what is damaged.

    Examples:

        actord doctor actord-data
        actord doctor --deep /var/lib/shop
        actord doctor --json /var/lib/shop | jq .findings

    It changes nothing. Exit code 0: healthy, 1: damage was found, 78: not a data directory.
    """
    from actord.storage.doctor import examine  # the store's modules, which no other command needs

    try:
        with shown(not as_json and sys.stderr.isatty()) as told:
            report = examine(str(data_dir), slot_of=slot_of, slot_range=slot_range, deep=deep, progress=told)
    except DataDirLocked as error:
        raise StartError(error.detail, TEMPORARY) from None
    except DataDirError as error:
        raise StartError(error.detail, CONFIG) from None
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(_document(report)), indent=2).decode())
    else:
        for line in lines(report):
            print(line)
    if report.damaged:
        raise typer.Exit(FAILED)


def _document(report: Report) -> dict[str, object]:
    return {"healthy": not report.damaged, **msgspec.to_builtins(report)}


def lines(report: Report) -> list[str]:
    """The report as lines of text for a person."""
    shards = f"{report.shards} shard" + ("" if report.shards == 1 else "s")
    found = [f"{report.path}: {shards}, {report.actors:,} actors, {report.rows:,} rows with checksums"]
    damage = [finding for finding in report.findings if finding.level == "damage"]
    for finding in damage:
        found += _told("DAMAGE", finding)
    for finding in report.findings:
        if finding.level == "note":
            found += _told("note", finding)
    if not damage:
        found.append("healthy")
    else:
        found.append(f"damaged: {len(damage)} finding" + ("" if len(damage) == 1 else "s"))
    return found


def _told(word: str, finding: Finding) -> list[str]:
    place = f" {finding.file}:" if finding.file else ""
    said = [f"{word}{place} {_one_line(finding.what)}"]
    return [*said, f"    {_one_line(finding.todo)}"] if finding.todo else said


def _one_line(text: str) -> str:
    """Damaged names may hold anything: no control characters reach a terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
