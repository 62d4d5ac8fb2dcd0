"""``actord reshard``: deal a stopped data directory to another number of shards. See ``storage.reshard``."""

from __future__ import annotations

import sys
from pathlib import Path
from time import monotonic
from typing import Annotated

import msgspec
import typer
from actord.server.commands.progress import shown
from actord.server.exits import refusals
from actord.shards.slots import slot_of, slot_range


def reshard(
    data_dir: Annotated[Path, typer.Argument(metavar="DATA_DIR", help="The data directory.", show_default=False)],
    shards: Annotated[
        int | None, typer.Option(min=1, max=1024, help="The number of shards that it shall have.", show_default=False)
    ] = None,
    cancel: Annotated[
        bool, typer.Option("--cancel", help="Give up what was interrupted, as long as the old data are in place.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Deal the names of a stopped data directory to another number of shards.

    Examples:

        actord reshard actord-data --shards 8
        actord reshard actord-data --cancel

    The number of shards bounds the number of workers. Stop the server first. It needs about as much room as the
    data take. Interrupted at any point, it goes on where it was when it is run again; a server does not start
    before that. Exit code 0: done, 1: damage was found, 75: a server uses the directory, 78: it can't be done.
    """
    from actord.storage import reshard as work  # the store's modules, which no other command needs

    if cancel == (shards is not None):
        raise typer.BadParameter("give either --shards or --cancel")
    began = monotonic()
    with refusals():
        if shards is None:
            given_up = work.cancel(str(data_dir))
            print("given up: the old shards are as they were" if given_up else "nothing was under way")
            return
        with shown(not as_json and sys.stderr.isatty()) as told:
            done = work.reshard(str(data_dir), shards, slot_of=slot_of, slot_range=slot_range, progress=told)
    if as_json:
        print(msgspec.json.encode(msgspec.to_builtins(done)).decode())
    elif done.before == done.after:
        print(f"{data_dir} has {done.after} shards already")
    else:
        print(
            f"{data_dir}: {done.before} shards became {done.after}; {done.actors:,} actors, {done.rows:,} rows, "
            f"{monotonic() - began:.1f} s"
        )
