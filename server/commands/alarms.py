"""``actord alarms``: what is armed, what has failed, and what an operator does about it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from actord.server.commands.running import actor, client, utc
from actord.server.commands.serve import AppArgument, DataDirOption

alarms = typer.Typer(
    no_args_is_help=True,
    help="List, fire, re-arm and remove the alarms of a running server.",
    rich_markup_mode="rich",
)

KeyArgument = Annotated[str, typer.Argument(metavar="TYPE/NAME", help="The actor, as in Account/alice.")]
TypeOption = Annotated[str | None, typer.Option("--type", metavar="TYPE", help="Only this actor type.")]
LIMIT = 1_000


@alarms.command("ls")
def ls(
    app: AppArgument = None,
    failed: Annotated[bool, typer.Option("--failed", help="Those that have failed for good, and why.")] = False,
    type_: TypeOption = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many, the earliest first.")] = LIMIT,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")] = False,
    data_dir: DataDirOption = None,
) -> None:
    """List alarms: actor, due time (UTC), failed runs so far, last error.

    Examples:

        actord alarms ls
        actord alarms ls --failed --type Booking
        actord alarms ls --json --data-dir /var/lib/shop | jq .name

    The server must run; it is found by its data directory.
    """
    with client(app, data_dir) as server:
        values = server.ask("alarms.list", failed=failed, type=type_, limit=limit)
    found = sorted((a for value in values for a in value["alarms"]), key=lambda a: (a["due"], a["type"], a["name"]))
    for alarm in found[:limit]:
        print(_json(alarm) if as_json else _line(alarm))
    if len(found) > limit or any(value["more"] for value in values):
        print(f"actord: there are more; these are the first {limit} (--limit)", file=sys.stderr)
    elif not found and not as_json:
        print(f"actord: no alarm {'has failed' if failed else 'is armed'}", file=sys.stderr)


@alarms.command("run")
def run(key: KeyArgument, app: AppArgument = None, data_dir: DataDirOption = None) -> None:
    """Fire an alarm now, armed or failed; returns when that is durable, not when the handler has run.

    Examples:

        actord alarms run Booking/room-12
    """
    _change("alarms.run", key, app, data_dir)


@alarms.command("retry")
def retry(
    key: Annotated[
        str | None, typer.Argument(metavar="TYPE/NAME", help="The actor; none with --all.", show_default=False)
    ] = None,
    app: AppArgument = None,
    every: Annotated[bool, typer.Option("--all", help="Every alarm that has failed.")] = False,
    type_: TypeOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Arm failed alarms again: they fire now, with all of their retries before them.

    Examples:

        actord alarms retry Booking/room-12
        actord alarms retry --all
        actord alarms retry --all --type Booking
    """
    if not every:
        if key is None or type_ is not None:
            raise typer.BadParameter("Name one actor, or say --all (with --type for those of one type).")
        _change("alarms.retry", key, app, data_dir)
        return
    if key is not None and app is not None:
        raise typer.BadParameter("--all takes no actor.")
    with client(app or key, data_dir) as server:
        count = sum(server.ask("alarms.retry_all", type=type_))
    print(f"actord: {count} armed again", file=sys.stderr)


@alarms.command("rm")
def rm(key: KeyArgument, app: AppArgument = None, data_dir: DataDirOption = None) -> None:
    """Remove an alarm, armed or failed: it does not fire.

    Examples:

        actord alarms rm Booking/room-12
    """
    _change("alarms.remove", key, app, data_dir)


def _change(do: str, key: str, app: str | None, data_dir: Path | None) -> None:
    type_, slash, name = key.partition("/")
    if not (type_ and slash and name):
        raise typer.BadParameter(f"{key!r} is not TYPE/NAME, as in Account/alice.", param_hint="TYPE/NAME")
    with client(app, data_dir) as server:
        server.ask(do, key=[type_, name])


def _json(alarm: dict[str, Any]) -> str:
    return json.dumps({**alarm, "due": utc(alarm["due"]), "scheduled": utc(alarm["scheduled"])}, ensure_ascii=False)


def _line(alarm: dict[str, Any]) -> str:
    parts = [utc(alarm["due"]), actor(alarm["type"], alarm["name"])]
    if alarm["retries"]:
        parts.append(f"failed {alarm['retries']}x")
    if alarm["error"] is not None:
        parts.append(" ".join(alarm["error"].split()))
    return "  ".join(parts)
