"""``actord outbox``: the messages between actors that have not arrived, and what an operator does about them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from actord.server.commands.running import actor, client, utc
from actord.server.commands.serve import AppArgument, DataDirOption
from actord.server.exits import FAILED, StartError

outbox = typer.Typer(
    no_args_is_help=True,
    help="List, retry and remove the messages between actors that have not arrived.",
    rich_markup_mode="rich",
)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The message, as `actord outbox ls` shows it: 0-3-17.")]
TypeOption = Annotated[str | None, typer.Option("--type", metavar="TYPE", help="Only those to this actor type.")]
LIMIT = 1_000
_ID = re.compile(r"(\d{1,4})-(\d{1,7})-(\d{1,13})")
_COUNT_BITS = 40  # an id is the epoch and a count, as storage/outbox.py makes it


@outbox.command("ls")
def ls(
    app: AppArgument = None,
    parked: Annotated[bool, typer.Option("--parked", help="Those that have failed for good, and why.")] = False,
    type_: TypeOption = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many, the oldest first.")] = LIMIT,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")] = False,
    data_dir: DataDirOption = None,
) -> None:
    """List messages: id, sender, receiver, method, when they are due (UTC), failed attempts so far, last error.

    Examples:

        actord outbox ls
        actord outbox ls --parked --type Account
        actord outbox ls --json --data-dir /var/lib/shop | jq .to

    The server must run; it is found by its data directory.
    """
    with client(app, data_dir) as server:
        values = server.ask("outbox.list", parked=parked, type=type_, limit=limit)
    found = sorted((m for value in values for m in value["messages"]), key=lambda m: (m["shard"], m["id"]))
    for message in found[:limit]:
        print(_json(message) if as_json else _line(message))
    if len(found) > limit or any(value["more"] for value in values):
        print(f"actord: there are more; these are the first {limit} (--limit)", file=sys.stderr)
    elif not found and not as_json:
        print(f"actord: no message {'is parked' if parked else 'is on its way'}", file=sys.stderr)


@outbox.command("retry")
def retry(
    id_: Annotated[str | None, typer.Argument(metavar="ID", help="The message; none with --all.")] = None,
    app: AppArgument = None,
    every: Annotated[bool, typer.Option("--all", help="Every parked message.")] = False,
    type_: TypeOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Deliver a message now: a parked one with all of its retries before it, a waiting one without its wait.

    A parked or delayed message comes behind what the same sender has sent since, and has a new id.

    Examples:

        actord outbox retry 0-3-17
        actord outbox retry --all
        actord outbox retry --all --type Account
    """
    if not every:
        if id_ is None or type_ is not None:
            raise typer.BadParameter("Name one message, or say --all (with --type for those to one type).")
        _change("outbox.retry", id_, app, data_dir)
        return
    if id_ is not None and app is not None:
        raise typer.BadParameter("--all takes no message.")
    with client(app or id_, data_dir) as server:
        count = sum(server.ask("outbox.retry_all", type=type_))
    print(f"actord: {count} on their way again", file=sys.stderr)


@outbox.command("rm")
def rm(id_: IdArgument, app: AppArgument = None, data_dir: DataDirOption = None) -> None:
    """Remove a message: it is not delivered. One that is being delivered at this moment may arrive before.

    Examples:

        actord outbox rm 0-3-17
    """
    _change("outbox.remove", id_, app, data_dir)


def _change(do: str, shown: str, app: str | None, data_dir: Path | None) -> None:
    match = _ID.fullmatch(shown)
    if match is None:
        raise typer.BadParameter(f"{shown!r} is no message's id, as in 0-3-17.", param_hint="ID")
    shard, epoch, count = map(int, match.groups())
    with client(app, data_dir) as server:
        if not any(server.ask(do, message=[shard, epoch << _COUNT_BITS | count])):
            raise StartError(f"There is no message {shown}: it has arrived, or was removed.", FAILED)


def _state(message: dict[str, Any]) -> str:
    if message["error"] is not None:
        return "parked"
    if message["attempts"]:
        return "retry"
    return "delayed" if message["due"] else "queued"


def _id(message: dict[str, Any]) -> str:
    return f"{message['shard']}-{message['id'] >> _COUNT_BITS}-{message['id'] & (1 << _COUNT_BITS) - 1}"


def _json(message: dict[str, Any]) -> str:
    due = utc(message["due"]) if message["due"] else None
    shown = {"id": _id(message), "state": _state(message), **message, "due": due} | {"id": _id(message)}
    del shown["shard"]
    return json.dumps(shown, ensure_ascii=False)


def _line(message: dict[str, Any]) -> str:
    parts = [
        _id(message),
        actor(*message["from"]),
        "->",
        f"{actor(*message['to'])}.{message['method']}",
        _state(message),
    ]
    if message["due"]:
        parts.append(utc(message["due"]))
    if message["attempts"]:
        parts.append(f"failed {message['attempts']}x")
    if message["error"] is not None:
        parts.append(" ".join(message["error"].split()))
    return "  ".join(parts)
