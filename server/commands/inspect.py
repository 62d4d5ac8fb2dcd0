"""``actord inspect``: everything that there is of one actor, on the disk and in the memory of a server."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from actord.server.commands.looking import JsonOption, KeyArgument, Place, json_text, parsed, value_of
from actord.server.commands.running import actor, utc
from actord.server.commands.serve import AppArgument, DataDirOption
from actord.server.exits import FAILED, UNAVAILABLE, StartError
from actord.shards.slots import slot_of

if TYPE_CHECKING:
    from actord.server.admin import AdminClient
    from actord.storage.look import Look
    from actord.storage.look_actor import Stored

KEYS = 100
PATIENCE_SECONDS = 5.0
LOOK_SECONDS = 0.5
_CHAIN = 8  # actors that wait for each other, and are followed

Key = tuple[str, str]


def inspect(
    key: KeyArgument,
    app: AppArgument = None,
    keys: Annotated[int, typer.Option(min=0, max=1_000_000, help="At most so many keys with their values.")] = KEYS,
    watch: Annotated[bool, typer.Option("--watch", help="Go on, and print each call as it ends.")] = False,
    as_json: JsonOption = False,
    data_dir: DataDirOption = None,
) -> None:
    """Show an actor: its keys and values, SQL tables, alarm, events, messages, sizes.

    Examples:

        actord inspect Account/alice
        actord inspect Account/alice --watch
        actord inspect Account/alice --json --data-dir /var/lib/shop | jq .stored.keys

    While a server runs: also whether the actor is in memory, how many calls wait for it and what they wait for,
    its sockets, and its last calls, split into waited, ran and committed. Exit code 1: there is no such actor.
    """
    type_, name = wanted = parsed(key)
    place = Place(app, data_dir)
    server = place.server()
    if watch and server is None:
        raise StartError(f"No server runs on the data directory {place.path}: there are no calls.", UNAVAILABLE)
    found = document(place, wanted, server, keys)
    if found["stored"] is None and not (found["server"] or {}).get("in_memory"):
        raise StartError(f"There is no {actor(type_, name)}: it has never written anything.", FAILED)
    if as_json:
        print(json_text(found), flush=True)
    else:
        from actord.server.commands.inspect_view import lines

        print("\n".join(lines(found)), flush=True)
    if watch:
        assert server is not None
        try:
            _watch(server, wanted, as_json)
        except KeyboardInterrupt:
            return


def document(place: Place, key: Key, server: AdminClient | None, keys: int) -> dict[str, Any]:
    """What ``--json`` prints. ``stored`` is null where nothing is, ``server`` where none runs."""
    from actord.storage import look_actor

    slot, shard = slot_of(*key), place.shard(key)

    def work(look: Look) -> Stored | None:
        id_ = look_actor.find(look, shard, slot, *key)
        return None if id_ is None else look_actor.stored(look, shard, id_, keys=keys)

    stored = place.look([shard], work)
    coming = sum(place.look_in_groups(lambda look: look_actor.coming(look, key)))
    return {
        "type": key[0],
        "name": key[1],
        "slot": slot,
        "shard": shard,
        "stored": None if stored is None else _stored(stored, coming),
        "server": None if server is None else _live(server, key),
    }


def _stored(found: Stored, coming: int) -> dict[str, Any]:
    first, last, event_bytes = found.events
    shown = []
    for key, raw in found.items:
        type_, value = value_of(raw)
        shown.append({"key": key, "bytes": len(raw), "type": type_, "value": value})
    return {
        "id": found.id,
        "commit": found.commit,
        "version": found.version,
        "bytes": found.keys_bytes + found.sql_bytes + event_bytes + found.replies[1] + found.sent[2],
        "keys": {"count": found.keys, "bytes": found.keys_bytes, "shown": shown},
        "sql": _sql(found),
        "alarm": None
        if found.alarm is None
        else {
            "due": utc(found.alarm.due),
            "scheduled": utc(found.alarm.scheduled),
            "retries": found.alarm.retries,
            "error": found.alarm.error,
        },
        "events": {"first": first, "last": last, "kept": last - first + 1, "bytes": event_bytes},
        "idempotency_keys": {"count": found.replies[0], "bytes": found.replies[1]},
        "messages": {"sent": found.sent[0], "parked": found.sent[1], "coming": coming},
    }


def _sql(found: Stored) -> dict[str, Any] | None:
    if found.sql is None:
        return None
    from actord.server.commands.actor_sql import tables  # sqlite-utils, which no other command needs

    return {
        "bytes": found.sql_bytes,
        "tables": [{"name": t.name, "rows": t.rows, "columns": t.columns} for t in tables(found.sql)],
    }


def _live(server: AdminClient, key: Key) -> dict[str, Any]:
    server.hurry(PATIENCE_SECONDS)
    try:
        [found] = server.ask("inspect", key=list(key))
    except StartError as error:  # its worker may be stuck in this very actor: what is stored is shown all the same
        return {"error": str(error)}
    found["calls"] = [{**call, "at": utc(call["at"])} for call in found["calls"]]
    _follow(server, found["running"], {key})
    return {"error": None, **found}


def _follow(server: AdminClient, running: dict[str, Any] | None, seen: set[Key]) -> None:
    """Add what the actors do that a turn waits for, and so on."""
    for wait in () if running is None else running["waits_for"]:
        key = wait["type"], wait["name"]
        wait["running"] = None
        if key in seen or len(seen) >= _CHAIN:
            continue
        seen.add(key)
        try:
            [found] = server.ask("inspect", key=list(key))
        except StartError:
            return
        wait["running"] = found["running"]
        wait["mailbox"] = found["mailbox"]
        _follow(server, wait["running"], seen)


def _watch(server: AdminClient, key: Key, as_json: bool) -> None:
    from actord.server.commands.inspect_view import call_line, waiting_lines

    server.ask("inspect", key=list(key), watch=True)
    told: list[str] = []
    while True:
        time.sleep(LOOK_SECONDS)
        [found] = server.ask("inspect", key=list(key), watch=True)
        for call in found["calls"]:
            call["at"] = utc(call["at"])
            print(json_text(call) if as_json else call_line(call), flush=True)
        _follow(server, found["running"], {key})
        waiting = waiting_lines(found) if found["mailbox"] and not as_json else []
        if waiting and not (told and told[0] == waiting[0]):
            print("\n".join(waiting), file=sys.stderr, flush=True)
        told = waiting
