"""``actord tail``: what an actor of a running server emits, as it happens."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer
from actord.client_address import DEFAULT_URL
from actord.server.commands.call import TokenFileOption, in_words
from actord.server.exits import FAILED, StartError

_TIMEOUT_SECONDS = 40.0  # a comment comes every 20 s at the latest
_RETRY_SECONDS = 1.0


def tail(
    actor: Annotated[str, typer.Argument(metavar="TYPE/NAME", help="The actor, as in Account/alice.")],
    first: Annotated[
        int | None,
        typer.Option("--from", min=0, metavar="NUMBER", help="Begin with this event; 0: with the oldest one kept."),
    ] = None,
    count: Annotated[int, typer.Option(min=0, metavar="NUMBER", help="End after so many events; 0: never.")] = 0,
    url: Annotated[
        str, typer.Option(envvar="ACTORD_URL", metavar="URL", help="The server: http://HOST:PORT or unix:PATH.")
    ] = DEFAULT_URL,
    token_file: TokenFileOption = None,
) -> None:
    """Print the events of an actor as they happen: number, kind, data as JSON.

    Examples:

        actord tail Account/alice
        actord tail Account/alice --from 0
        actord tail Account/alice --from 0 --count 10

    It goes on until Ctrl-C, over restarts of the server, and misses nothing.
    """
    type_, slash, name = actor.partition("/")
    if not (type_ and slash and name):
        raise typer.BadParameter(f"{actor!r} is not TYPE/NAME, as in Account/alice.", param_hint="TYPE/NAME")
    path = f"/actors/{quote(type_, safe='')}/{quote(name, safe='')}/events"
    try:
        for shown, line in enumerate(_follow(url, path, first, token_file), 1):
            print(line, flush=True)
            if shown == count:
                return
    except KeyboardInterrupt:
        return


def _follow(url: str, path: str, first: int | None, token_file: Path | None) -> Iterator[str]:
    """Lines for events, for ever. Raises ``StartError`` when the server can't be reached at the beginning."""
    last: str | None = None
    while True:
        try:
            target = path + (f"?from={first}" if first is not None else "")
            for number, kind, data in _read(url, target, last, token_file):
                last = number
                if kind is not None:
                    yield f"{number} {kind} {data}"
            told = "The stream has ended"
        except StartError as error:
            if last is None:
                raise
            told = str(error)
        print(f"actord: {told}; trying again ...", file=sys.stderr)
        time.sleep(_RETRY_SECONDS)


def _read(url: str, path: str, last: str | None, token_file: Path | None) -> Iterator[tuple[str, str | None, str]]:
    """Number, kind and data of each event; the kind is None where only the number is told."""
    from actord.server.commands.posting import authorized, opened

    headers = authorized(token_file) | ({"Last-Event-ID": last} if last else {})
    with opened("GET", url, path, _TIMEOUT_SECONDS, headers=headers) as response:
        if response.status == 503 and last is not None:
            response.read()
            return
        if response.status != 200:
            print(f"actord: {in_words(response.status, response.read())}", file=sys.stderr)
            raise typer.Exit(FAILED)
        fields: dict[str, str] = {}
        while (line := response.readline().decode()).endswith("\n"):  # what is cut off in its middle counts for nothing
            if line != "\n":
                name, _, value = line.rstrip("\n").partition(": ")
                fields[name] = value
                continue
            if "id" in fields:
                yield fields["id"], fields.get("event"), fields.get("data", "")
            fields = {}
