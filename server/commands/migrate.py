"""``actord migrate``: run the upgrades of all actors of a stopped data directory. See ``shards.migration``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from actord.server.commands.progress import shown
from actord.server.commands.serve import AppArgument, ConfigOption, DataDirOption
from actord.server.config import resolve
from actord.server.exits import CONFIG, FAILED, StartError, refusals

if TYPE_CHECKING:
    from actord.shards.migration import Outcome


def migrate(
    app: AppArgument = None,
    check: Annotated[bool, typer.Option("--check", help="Do it on a copy, which is removed then.")] = False,
    data_dir: DataDirOption = None,
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Run the upgrades of all actors whose data are older than their classes.

    Examples:

        actord migrate --check shop.py --data-dir shop-data
        actord migrate shop.py --data-dir shop-data

    A server does this by itself, for each actor when it is first called: nobody has to run this command. It
    shows beforehand whether every upgrade works, or does all of it at once. The server must be stopped;
    `--check` works on a backup as well. Alarms don't fire and messages are not delivered meanwhile.
    Exit code 0: all went well, 1: an upgrade failed or damage was found, 75: a server uses the directory,
    78: it can't be done.
    """
    from actord.shards import migration  # a whole worker, which no other command needs
    from actord.shards.registry import ProgramError, load_program

    settings = resolve(
        app, config=None if config is None else str(config), flags={("server", "data_dir"): data_dir and str(data_dir)}
    )
    try:
        program = load_program(settings.app)
        with refusals(), shown(not as_json and sys.stderr.isatty()) as told:
            outcome = migration.migrate(settings, program, check=check, progress=told)
    except ProgramError as error:
        raise StartError(str(error), CONFIG) from None
    if as_json:
        print(msgspec.json.encode({"checked": check, **msgspec.to_builtins(outcome)}).decode())
    else:
        for line in lines(outcome, check):
            print(line)
    if outcome.failures:
        raise typer.Exit(FAILED)


def lines(outcome: Outcome, check: bool) -> list[str]:
    """The outcome as lines of text for a person."""
    would = "would be upgraded" if check else "upgraded"
    found = [f"{type_}: {count:,} {would}" for type_, count in sorted(outcome.upgraded.items())]
    found += [f"{type_}: {count:,} FAILED, their data are as before" for type_, count in sorted(outcome.failed.items())]
    found += [f"    {failure.type}/{failure.name}: {failure.why}" for failure in outcome.failures]
    if sum(outcome.failed.values()) > len(outcome.failures):
        found.append("    ...")
    return [*(found or ["nothing to do: all data have the versions of their classes"]), f"{outcome.seconds:.1f} s"]
