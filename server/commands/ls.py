"""``actord ls``: which types of actors there are, and the names of one."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Annotated

import typer
from actord.server.commands.looking import Place, json_text, plain
from actord.server.commands.serve import AppArgument, DataDirOption

LIMIT = 1_000


def ls(
    type_: Annotated[
        str | None, typer.Argument(metavar="TYPE", help="The names of this type; without it the types.")
    ] = None,
    app: AppArgument = None,
    prefix: Annotated[str, typer.Option(metavar="TEXT", help="Only names that begin with it.")] = "",
    after: Annotated[str, typer.Option(metavar="NAME", help="Only names behind this one: the next page.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="At most so many names.")] = LIMIT,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")] = False,
    data_dir: DataDirOption = None,
) -> None:
    """List the types of actors that have data, with how many there are, or the names of one type.

    Examples:

        actord ls
        actord ls Account
        actord ls Account --prefix eu- --limit 100
        actord ls Account --after eu-zoe --json --data-dir /var/lib/shop

    Names come in the order of their bytes. The data directory is read while a server runs on it, or while none
    does; the server does not notice. An actor counts from the first time that it wrote something.
    """
    from actord.storage import look_actor  # the store's modules, which few commands need

    if type_ is None and (prefix or after):
        raise typer.BadParameter("--prefix and --after are for the names of a type: name one.")
    if type_ is not None and not type_.isidentifier():
        raise typer.BadParameter(f"{plain(type_)!r} can't be the name of a class.", param_hint="TYPE")
    place = Place(app, data_dir)
    if type_ is None:
        counts: Counter[str] = Counter()
        for part in place.look_in_groups(look_actor.count_types):
            counts.update(part)
        for name, count in sorted(counts.items()):
            print(json_text({"type": name, "actors": count}) if as_json else f"{count:>10,}  {plain(name)}")
        if not counts and not as_json:
            print("actord: nothing has been written here yet", file=sys.stderr)
        return
    parts = place.look_in_groups(
        lambda look: look_actor.names(look, type_, prefix=prefix, after=after, limit=limit + 1)
    )
    found = sorted(name for part in parts for name in part)[: limit + 1]
    for name in found[:limit]:
        print(json_text({"type": type_, "name": name}) if as_json else plain(name))
    if len(found) > limit:
        print(f"actord: there are more; these are {limit} of them (--limit, --after)", file=sys.stderr)
    elif not found and not as_json:
        print(f"actord: there is no such {type_}", file=sys.stderr)
