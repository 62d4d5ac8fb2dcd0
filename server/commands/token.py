"""``actord token``: makes, lists and removes the tokens that callers need."""

from __future__ import annotations

import json
import os
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from actord.server import tokens
from actord.server.commands.running import utc
from actord.server.commands.serve import DataDirOption
from actord.server.config import resolve
from actord.server.exits import FAILED, StartError
from actord.server.guard import token_path

token = typer.Typer(
    no_args_is_help=True,
    help="Make, list and remove the tokens that callers need.",
    rich_markup_mode="rich",
)

_SPAN = re.compile(r"([1-9][0-9]{0,5})([hdw])").fullmatch
_HOURS = {"h": 1, "d": 24, "w": 168}

AppOption = Annotated[
    str | None, typer.Option("--app", metavar="APP", help="The program, as for `serve`.", show_default=False)
]
FileOption = Annotated[
    Path | None,
    typer.Option("--file", metavar="FILE", help="The token file, whatever the program's says.", show_default=False),
]


@token.command("new")
def new(
    scope: Annotated[
        list[str],
        typer.Option("--scope", metavar="SCOPE", help="What it allows; several times for several.", show_default=False),
    ],
    name: Annotated[str, typer.Option(metavar="NAME", help="Whose it is, for people.", show_default=False)] = "",
    expires: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="When it ends: 12h, 90d, 8w, or a date.", show_default="never"),
    ] = None,
    app: AppOption = None,
    data_dir: DataDirOption = None,
    file: FileOption = None,
) -> None:
    """Make a token. It stands on standard output, this once: the file keeps its hash.

    Examples:

        actord token new --scope 'Account:debit' --scope 'Account:balance'
        actord token new --scope 'Account:*:read' --name dashboard --expires 90d
        actord token new --scope '*' --scope @door --scope @admin --name operator

    A scope is TYPE, TYPE:METHOD or TYPE:METHOD:VERB. The verb is call (POST
    and sockets) or read (GET); * stands for all. @door is the front door,
    @admin the system's own paths. A running server knows it within a second.
    """
    if len(name) > 100 or not name.isprintable():
        raise typer.BadParameter("a name is printable and has at most 100 characters.", param_hint="--name")
    try:
        text, made = tokens.make(scope, name=name, expires=None if expires is None else _end(expires))
    except ValueError as error:
        raise typer.BadParameter(f"{error}.", param_hint="--scope") from None
    path = _path(app, data_dir, file)
    if file is None:
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    with tokens.changing(path) as content:
        content.tokens.append(made)
    allowed = " ".join(made.scopes)
    print(f"actord: token {made.id} allows {allowed}{_until(made)}; its hash is in {path}", file=sys.stderr)
    print(text)


@token.command("ls")
def ls(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")] = False,
    app: AppOption = None,
    data_dir: DataDirOption = None,
    file: FileOption = None,
) -> None:
    """List the tokens: id, name, scopes, end (UTC). What they are is not known any more.

    Examples:

        actord token ls
        actord token ls --json | jq -r 'select(.expired) | .id'
    """
    found = _read(_path(app, data_dir, file)).tokens
    now = datetime.now(UTC)
    for one in found:
        print(json.dumps(_described(one, now)) if as_json else _line(one, now))
    if not found and not as_json:
        print("actord: there is no token", file=sys.stderr)


@token.command("rm")
def rm(
    which: Annotated[list[str], typer.Argument(metavar="ID...", help="The tokens' ids, as `ls` shows them.")],
    app: AppOption = None,
    data_dir: DataDirOption = None,
    file: FileOption = None,
) -> None:
    """Revoke tokens: a running server refuses them, and ends what they do, within a second.

    Examples:

        actord token rm 3f9a0c1b2d4e
        actord token ls --json | jq -r 'select(.expired) | .id' | xargs actord token rm
    """
    path = _path(app, data_dir, file)
    wanted = {tokens.id_of(word) or word for word in which}  # a whole token names its id as well
    missing = wanted - {one.id for one in _read(path).tokens}
    if missing:
        raise StartError(f"There is no token {', '.join(sorted(missing))} in {path}; nothing was removed.", FAILED)
    with tokens.changing(path) as content:
        content.tokens = [one for one in content.tokens if one.id not in wanted]
    print(f"actord: removed {' '.join(sorted(wanted))}; {len(content.tokens)} left in {path}", file=sys.stderr)


def _path(app: str | None, data_dir: Path | None, file: Path | None) -> str:
    if file is not None:
        return os.path.abspath(file)
    if app is None and data_dir is not None:
        return os.path.join(os.path.abspath(data_dir), tokens.DEFAULT_NAME)
    flags = {("server", "data_dir"): None if data_dir is None else str(data_dir)}
    return token_path(resolve(app, flags=flags))


def _read(path: str) -> tokens.TokenFile:
    try:
        return tokens.read(path)
    except FileNotFoundError:
        raise StartError(f"There is no token file {path}. `actord token new` makes one.", FAILED) from None


def _end(text: str) -> datetime:
    span = _SPAN(text)
    now = datetime.now(UTC)
    try:
        if span is not None:
            return (now + timedelta(hours=int(span[1]) * _HOURS[span[2]])).replace(microsecond=0)
        end = datetime.fromisoformat(text)
        end = end.replace(tzinfo=end.tzinfo or UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is no time: 12h, 90d, 8w, or a date as 2027-01-31.", param_hint="--expires"
        ) from None
    if end <= now:
        raise typer.BadParameter(f"{text} is over.", param_hint="--expires")
    return end


def _until(one: tokens.Token) -> str:
    return "" if one.expires is None else f" until {_time(one.expires)}"


def _time(when: datetime) -> str:
    return utc(int(when.timestamp()) * 1000).replace(".000", "")


def _line(one: tokens.Token, now: datetime) -> str:
    end = "" if one.expires is None else f"  {'expired' if one.expired(now) else 'until'} {_time(one.expires)}"
    return f"{one.id}  {one.name or '-'}  {' '.join(one.scopes)}{end}"


def _described(one: tokens.Token, now: datetime) -> dict[str, Any]:
    return {
        "id": one.id,
        "name": one.name,
        "scopes": one.scopes,
        "created": None if one.created is None else _time(one.created),
        "expires": None if one.expires is None else _time(one.expires),
        "expired": one.expired(now),
    }
