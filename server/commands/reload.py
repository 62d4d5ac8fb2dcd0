"""``actord reload``: new code and configuration for a running server."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer
from actord.server.commands.running import client
from actord.server.commands.serve import AppArgument, DataDirOption

# The server says something after each worker; one may take server.drain_limit to leave and long to open its shards.
PATIENCE_SECONDS = 600.0


def reload(
    app: AppArgument = None,
    data_dir: DataDirOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what happened as JSON.")] = False,
) -> None:
    """Load the program and its configuration anew, without losing a call.

    Examples:

        actord reload shop
        actord reload --data-dir /var/lib/shop

    Workers are replaced one after the other: each finishes its calls and
    commits, and the calls that arrive in between wait. Sockets stay open.

    A program that does not load, one that lacks a type of which there is data,
    and options that need a restart are refused with exit code 78; nothing is
    changed then. Exit code 1 says that a worker failed on the way, and that all
    have gone back to the program of before.
    """
    with client(app, data_dir) as admin:
        done = admin.have_done("reload", on_progress=_tell, patience=PATIENCE_SECONDS)
    print(json.dumps(done) if as_json else summary(done))


def _tell(words: str) -> None:
    if sys.stderr.isatty():
        print(words.removeprefix("reload: "), file=sys.stderr, flush=True)


def summary(done: dict[str, Any]) -> str:
    """What was done, on one line."""
    count = done["workers"]
    changed = f"; options that changed: {', '.join(done['changed'])}" if done["changed"] else ""
    return f"reloaded {count} worker{'' if count == 1 else 's'} in {done['seconds']:.1f} s{changed}"
