"""``actord import`` and ``fork``, and the removal of an actor: actors as a whole, as lines of JSON."""

from __future__ import annotations

import base64
import os
import secrets
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from actord.server.commands.export import END, Key, read
from actord.server.commands.looking import JsonOption, KeyArgument, Place, json_text, parsed
from actord.server.commands.progress import shown
from actord.server.commands.running import actor
from actord.server.commands.serve import AppArgument, DataDirOption
from actord.server.exits import CONFIG, FAILED, StartError, refusals
from actord.shards import whole
from actord.shards.slots import slot_of, slot_range
from actord.shards.whole import Whole

if TYPE_CHECKING:
    from actord.server.admin import AdminClient
    from actord.storage.actor_edit import Content

PART_BYTES = 1024 * 1024
TRIES = 8


def import_(
    file: Annotated[str, typer.Argument(metavar="FILE", help="What an export has written; - is standard input.")],
    app: AppArgument = None,
    replace: Annotated[bool, typer.Option("--replace", help="Also actors that have data: those are lost.")] = False,
    as_json: JsonOption = False,
    data_dir: DataDirOption = None,
) -> None:
    """Put the actors of an export into a running server, or a stopped data directory.

    Examples:

        actord import accounts.jsonl
        actord export Account/alice | actord import - --data-dir copy --replace

    The file is checked to its end before anything is changed. Each actor is one commit, in its turn. Actors that have
    data are left alone, and make the exit code 1. Each change is written to audit.jsonl in the data directory.
    """
    place = Place(app, data_dir)
    lines = _checked_lines(file)
    server = place.server()
    done = 0
    left: list[str] = []
    with shown(not as_json and sys.stderr.isatty()) as told:
        for at, line in enumerate(lines):
            found = whole.decode(line)
            if put(place, server, found, replace=replace):
                done += 1
            else:
                left.append(actor(found.type, found.name))
            told("importing", (at + 1) / len(lines))
    if as_json:
        print(json_text({"imported": done, "existing": left}))
    else:
        print(f"actord: imported {done:,} of {len(lines):,}", file=sys.stderr)
    if left:
        more = f" and {len(left) - 3:,} more" if len(left) > 3 else ""
        raise StartError(f"{', '.join(left[:3])}{more}: there are data already. --replace overwrites them.", FAILED)


def _checked_lines(file: str) -> list[bytes]:
    try:
        if file == "-":
            content = sys.stdin.buffer.read()
        else:
            with open(file, "rb") as opened:
                content = opened.read()
    except OSError as error:
        raise StartError(f"{file} can't be read: {error.strerror}.", CONFIG) from None
    *lines, last = content.splitlines() or [b""]
    if last != END + b"%d}" % len(lines):
        raise StartError(
            f"{file} is no export, or not all of one: its last line does not say how many there are.", FAILED
        )
    for number, line in enumerate(lines, 1):
        try:
            whole.decode(line)
        except ValueError as error:
            raise StartError(f"{file}, line {number}: {error}. Nothing was imported.", FAILED) from None
    return lines


def put(place: Place, server: AdminClient | None, found: Whole, *, replace: bool) -> bool:
    """Put an actor into its place. False when it has data already and they were left alone."""
    key = found.type, found.name
    if server is not None:
        id_ = secrets.token_hex(8)
        line = whole.encode(found)
        for at in range(0, len(line), PART_BYTES):
            data = base64.b64encode(line[at : at + PART_BYTES]).decode()
            server.ask("whole.part", key=list(key), id=id_, data=data)
        [answer] = server.ask("whole.put", key=list(key), id=id_, replace=replace)
        return not answer["exists"]
    from actord.storage import actor_edit  # a whole store, which no other command needs

    content = actor_edit.Content(found.version, found.values, found.pages, found.alarm)
    with refusals():
        return actor_edit.put_actor(_where(place, key), content, replace=replace, entry=_entry("import", key))


def fork(
    key: KeyArgument,
    target: Annotated[str, typer.Argument(metavar="TYPE/NAME", help="The copy, as in Account/alice-debug.")],
    app: AppArgument = None,
    replace: Annotated[bool, typer.Option("--replace", help="Also when the copy has data: they are lost.")] = False,
    as_json: JsonOption = False,
    data_dir: DataDirOption = None,
) -> None:
    """Copy an actor under another name: its values, its SQL database and their version.

    Examples:

        actord fork Account/alice Account/alice-debug

    Not its alarm, events, messages and sockets. The copy is of one commit.
    Exit code 1: there is no such actor, or the other name has data already.
    """
    source, copy = parsed(key), parsed(target)
    if source[0] != copy[0]:
        raise typer.BadParameter("a copy has the same type.")
    if source == copy:
        raise typer.BadParameter("a copy has another name.")
    place = Place(app, data_dir)
    found = _one(place, source)
    if not put(place, place.server(), found._replace(name=copy[1], alarm=None), replace=replace):
        raise StartError(f"{actor(*copy)} has data already. --replace overwrites them.", FAILED)
    if as_json:
        print(json_text({"from": list(source), "to": list(copy)}))
    else:
        print(f"actord: {actor(*copy)} is a copy of {actor(*source)}", file=sys.stderr)


def _one(place: Place, key: Key) -> Whole:
    found = read(place, [key])
    if not found:
        raise StartError(f"There is no {actor(*key)}: it has no data.", FAILED)
    return found[0]


def remove(place: Place, key: Key, *, yes: bool, as_json: bool) -> None:
    """``actord rm`` of a whole actor: into the trash, then away, if nothing has changed in between."""
    from actord.storage import trash

    found = _one(place, key)
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter(f"without a terminal, say --yes: all of {actor(*key)} is removed.")
        typer.confirm(f"Remove all of {actor(*key)}?", abort=True, err=True)
    server = place.server()
    for _ in range(TRIES):
        content = whole.encode(found) + b"\n" + END + b"1}\n"
        try:
            kept = trash.keep(place.path, content)
        except OSError as error:
            raise StartError(f"The trash can't be written, so nothing was removed: {error}.", FAILED) from None
        if _removed(place, server, found):
            if as_json:
                print(json_text({"type": key[0], "name": key[1], "kept": kept}))
            else:
                print(f"actord: {actor(*key)} is removed; `actord import {kept}` brings it back", file=sys.stderr)
            return
        os.unlink(kept)
        found = _one(place, key)
    raise StartError(f"{actor(*key)} changes all the time: nothing was removed. Try again.", FAILED)


def _removed(place: Place, server: AdminClient | None, found: Whole) -> bool:
    key = found.type, found.name
    if server is not None:
        [answer] = server.ask("whole.remove", key=list(key), sum=found.sum)
        return not (answer["missing"] or answer["changed"])
    from actord.storage import actor_edit

    with refusals():
        return actor_edit.remove_actor(
            _where(place, key), _entry("rm", key), lambda there: _whole(key, there).sum == found.sum
        )


def _whole(key: Key, content: Content) -> Whole:
    return Whole(*key, content.version, content.values, content.pages, content.alarm)


def _where(place: Place, key: Key) -> Any:
    from actord.storage.actor_edit import Place as Where

    shard = place.shard(key)
    return Where(place.path, shard, slot_range(shard, place.shards), slot_of(*key), *key)


def _entry(do: str, key: Key) -> dict[str, object]:
    return {
        "do": do,
        "type": key[0],
        "name": key[1],
        "by": {"uid": os.getuid(), "pid": os.getpid()},
        "server": False,
    }
