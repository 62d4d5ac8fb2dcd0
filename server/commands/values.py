"""``actord get``, ``put`` and ``rm``: one value of one actor, by hand."""

from __future__ import annotations

import base64
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from actord import codec
from actord import json as edge
from actord.errors import BadRequest, CodecError
from actord.limits import STORAGE_KEY_BYTES, STORAGE_RESERVED_PREFIX, VALUE_BYTES
from actord.server.commands.looking import JsonOption, KeyArgument, Place, json_text, parsed, plain, value_of
from actord.server.commands.running import actor
from actord.server.commands.serve import AppArgument, DataDirOption
from actord.server.exits import FAILED, StartError, refusals
from actord.shards.slots import slot_of, slot_range

if TYPE_CHECKING:
    from actord.storage.look import Look

EntryArgument = Annotated[str, typer.Argument(metavar="KEY", help="The key in the actor's storage.")]


def get(
    key: KeyArgument,
    entry: EntryArgument,
    app: AppArgument = None,
    as_json: JsonOption = False,
    data_dir: DataDirOption = None,
) -> None:
    """Print what is stored under a key of an actor, as JSON.

    Examples:

        actord get Account/alice balance
        actord get Account/alice balance --json --data-dir /var/lib/shop

    While a server runs, this waits its turn behind the calls of that actor. Exit code 1: there is no such key.
    """
    wanted, entry = parsed(key), _checked(entry)
    place = Place(app, data_dir)
    server = place.server()
    if server is not None:
        with server:
            [answer] = server.ask("data.get", key=list(wanted), entry=entry)
        raw = _raw(answer)
    else:
        raw = place.look([place.shard(wanted)], lambda look: _stored(look, place, wanted, entry))
    if raw is None:
        raise _missing(wanted, entry)
    found = _shown(raw)
    print(json_text({"key": entry, **found} if as_json else found["value"]))


def put(
    key: KeyArgument,
    entry: EntryArgument,
    value: Annotated[str, typer.Argument(metavar="JSON", help="The value; - reads it from standard input.")],
    app: AppArgument = None,
    new: Annotated[bool, typer.Option("--new", help="Make an actor that has never written anything.")] = False,
    as_json: JsonOption = False,
    data_dir: DataDirOption = None,
) -> None:
    """Store a value under a key of an actor.

    Examples:

        actord put Account/alice balance 30
        actord put Account/alice address '{"city": "Ulm"}'
        cat big.json | actord put Account/alice history -

    While a server runs, this waits its turn behind the calls of that actor, and is durable when the command returns;
    the instance is built anew for the next call. Who did it is written to audit.jsonl in the data directory before.
    """
    wanted, entry, raw = parsed(key), _checked(entry), _encoded(value)
    if entry.startswith(STORAGE_RESERVED_PREFIX):
        raise typer.BadParameter(f"keys that begin with {STORAGE_RESERVED_PREFIX} are reserved.", param_hint="KEY")
    place = Place(app, data_dir)
    server = place.server()
    if server is not None:
        with server:
            text = base64.b64encode(raw).decode()
            [answer] = server.ask("data.put", key=list(wanted), entry=entry, raw=text, new=new)
        if not answer["known"]:
            why = "the program has no such type." if new else "it has never written anything. --new makes it."
            raise StartError(f"There is no {actor(*wanted)}: {why}", FAILED)
        before = _raw(answer)
    elif new:
        raise StartError("An actor is made by a server, which has its class; none runs here.", FAILED)
    else:
        if place.look([place.shard(wanted)], lambda look: _id(look, place, wanted)) is None:
            raise StartError(f"There is no {actor(*wanted)}: it has never written anything.", FAILED)
        before = _change(place, wanted, entry, raw)
    _tell(wanted, entry, before, raw, as_json)


def rm(
    key: KeyArgument,
    entry: Annotated[
        str | None, typer.Argument(metavar="KEY", help="The key; without it the whole actor.", show_default=False)
    ] = None,
    app: AppArgument = None,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask before a whole actor is removed.")] = False,
    as_json: JsonOption = False,
    data_dir: DataDirOption = None,
) -> None:
    """Remove a key of an actor, or a whole actor.

    Examples:

        actord rm Account/alice balance
        actord rm Account/alice

    A whole actor is written to the folder trash of the data directory first, from where `actord import` brings it
    back; a server empties it after storage.trash_age.

    As with `actord put`: in its turn, durable when it returns, and written to the audit. Exit code 1: there is no
    such key.
    """
    wanted = parsed(key)
    if entry is None:
        from actord.server.commands.moving import remove

        remove(Place(app, data_dir), wanted, yes=yes, as_json=as_json)
        return
    entry = _checked(entry)
    place = Place(app, data_dir)
    server = place.server()
    if server is not None:
        with server:
            [answer] = server.ask("data.remove", key=list(wanted), entry=entry)
        before = _raw(answer)
    elif place.look([place.shard(wanted)], lambda look: _stored(look, place, wanted, entry)) is None:
        before = None
    else:
        before = _change(place, wanted, entry, None)
    if before is None:
        raise _missing(wanted, entry)
    _tell(wanted, entry, before, None, as_json)


def _checked(entry: str) -> str:
    try:
        size = len(entry.encode())
    except UnicodeEncodeError:
        raise typer.BadParameter("it is no valid UTF-8.", param_hint="KEY") from None
    if not 1 <= size <= STORAGE_KEY_BYTES:
        raise typer.BadParameter(f"a key has 1 to {STORAGE_KEY_BYTES} bytes.", param_hint="KEY")
    return entry


def _encoded(text: str) -> bytes:
    try:
        raw = codec.encode(edge.loads(sys.stdin.buffer.read() if text == "-" else text))
    except (BadRequest, CodecError, UnicodeEncodeError) as error:
        why = (
            getattr(error, "detail", "it is no valid UTF-8.")
            .replace("The body is not", "This is no")
            .replace("no valid JSON", "no JSON")
        )
        raise typer.BadParameter(f"{why} A text stands in quotes: '\"Ulm\"'.", param_hint="JSON") from None
    if len(raw) > VALUE_BYTES:
        raise typer.BadParameter(f"it has {len(raw):,} bytes; the limit is {VALUE_BYTES:,}.", param_hint="JSON")
    return raw


def _id(look: Look, place: Place, key: tuple[str, str]) -> int | None:
    from actord.storage import look_actor  # the store's modules, which few commands need

    return look_actor.find(look, place.shard(key), slot_of(*key), *key)


def _stored(look: Look, place: Place, key: tuple[str, str], entry: str) -> bytes | None:
    from actord.storage import look_actor

    id_ = _id(look, place, key)
    return None if id_ is None else look_actor.value(look, place.shard(key), id_, entry)


def _change(place: Place, key: tuple[str, str], entry: str, raw: bytes | None) -> bytes | None:
    from actord.storage import edit  # a whole store, which no other command needs

    shard = place.shard(key)
    told: dict[str, object] = {"do": "rm" if raw is None else "put", "type": key[0], "name": key[1], "key": entry}
    if raw is not None:
        told["bytes"] = len(raw)
    told |= {"by": {"uid": os.getuid(), "pid": os.getpid()}, "server": False}
    with refusals():
        return edit.change(place.path, shard, slot_range(shard, place.shards), slot_of(*key), *key, entry, raw, told)


def _raw(answer: dict[str, Any]) -> bytes | None:
    return None if answer["raw"] is None else base64.b64decode(answer["raw"])


def _shown(raw: bytes) -> dict[str, Any]:
    type_, value = value_of(raw)
    return {"bytes": len(raw), "type": type_, "value": value}


def _missing(key: tuple[str, str], entry: str) -> StartError:
    return StartError(f"{actor(*key)} has no key {plain(entry)}.", FAILED)


def _tell(key: tuple[str, str], entry: str, before: bytes | None, after: bytes | None, as_json: bool) -> None:
    old = None if before is None else _shown(before)
    new = None if after is None else _shown(after)
    if as_json:
        print(json_text({"type": key[0], "name": key[1], "key": entry, "before": old, "after": new}))
        return
    was = "it was not there" if old is None else f"it was {_short(old)}"
    now = "removed" if new is None else f"= {_short(new)}"
    print(f"actord: {actor(*key)} {plain(entry)} {now}; {was}", file=sys.stderr)
    if old is not None and new is not None and old["type"] != new["type"]:
        print(f"actord: mind the type: it was {old['type']} and is {new['type']} now", file=sys.stderr)


def _short(shown: dict[str, Any]) -> str:
    text = json_text(shown["value"])
    return text if len(text) <= 80 else f"{text[:80]} ... ({shown['bytes']:,} bytes)"
