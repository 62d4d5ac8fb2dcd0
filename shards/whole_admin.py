"""What an operator does to an actor as a whole: put one into its place, remove one.

1. Each is a turn of the actor: it waits behind the calls that came before, and is one commit, durable when answered.
2. ``whole.remove`` removes what the caller has seen, or nothing: it names the hash of all that it has kept a copy of,
   and an actor that has changed since is left as it is.
3. A change is in the audit before it is made. It drops the instance: the next call builds it anew. Sockets stay open.
4. Removed with an actor: values, SQL database, alarm, events (their numbers go on) and replies kept for idempotency
   keys. Messages that it has sent are delivered.

A line of an export may be longer than one of the admin socket: it comes in parts, which are kept for a minute.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

from actord.errors import BadRequest
from actord.shards import whole
from actord.shards.admin import run_turn
from actord.shards.call import Call, Effect, Lifecycle
from actord.shards.events import known_numbers
from actord.shards.whole import Whole

if TYPE_CHECKING:
    from actord.shards.activation import Activation
    from actord.shards.admin import Handler
    from actord.shards.control import Message
    from actord.shards.dispatch import Dispatcher
    from actord.shards.turns import TurnRunner
    from actord.storage.api import Batch

log = logging.getLogger("actord.data")

SECONDS = 30.0
KEPT_SECONDS = 60.0
STAGED_BYTES = 512 * 1024 * 1024


class WholeAdmin:
    """``record`` writes an entry to the audit; it blocks, and may raise."""

    def __init__(self, dispatcher: Dispatcher, runner: TurnRunner, record: Callable[[dict[str, Any]], None]) -> None:
        self._dispatcher = dispatcher
        self._runner = runner
        self._record = record
        self._parts: dict[str, tuple[float, bytearray]] = {}  # by id, with the time of the last part

    def handlers(self) -> dict[str, Handler]:
        return {"whole.part": self.part, "whole.put": self.put, "whole.remove": self.remove}

    async def part(self, request: Message) -> bool:
        """``{"key", "id", "data": base64}``: the next part of a line."""
        now = monotonic()
        for id_, (at, _) in list(self._parts.items()):
            if now - at > KEPT_SECONDS:
                del self._parts[id_]
        data = base64.b64decode(str(request.get("data")))
        if sum(len(parts) for _, parts in self._parts.values()) + len(data) > STAGED_BYTES:
            raise BadRequest("That is more than a running server takes: stop it, and import then.")
        _, parts = self._parts.get(str(request.get("id")), (0, bytearray()))
        parts += data
        self._parts[str(request.get("id"))] = now, parts
        return True

    async def put(self, request: Message) -> Message:
        """``{"key", "id", "replace": bool}`` -> ``{"exists"}``: true when there are data, and they were left alone."""
        _, line = self._parts.pop(str(request.get("id")), (0, bytearray()))
        try:
            found = whole.decode(bytes(line))
        except ValueError as error:
            raise BadRequest(f"This is no actor: {error}.") from None
        if [found.type, found.name] != request.get("key"):
            raise BadRequest(f"The line is that of {found.type}/{found.name}.")
        host = self._dispatcher.hosts.get(found.type)
        if host is None:
            raise BadRequest(f"The program has no type {found.type}.")
        if found.version > host.type.version:
            raise BadRequest(
                f"{found.type}/{found.name} has data of version {found.version}, and the program's class has "
                f"{host.type.version}. Run the newer program."
            )
        return await self._change("import", request, partial(_put, found, bool(request.get("replace"))))

    async def remove(self, request: Message) -> Message:
        """``{"key", "sum"}`` -> ``{"missing", "changed"}``, of which one is true when nothing was done."""
        return await self._change("rm", request, partial(_remove, str(request.get("sum"))))

    async def _change(self, what: str, request: Message, run: Callable[[Call], Message]) -> Message:
        type_, name = request["key"]
        act = self._dispatcher.activation(type_, name, gone=True)
        entry: dict[str, Any] = {"do": what, "type": type_, "name": name, "by": request.get("by"), "server": True}
        await asyncio.to_thread(self._record, entry)
        log.warning("%s of the whole of %s/%r by hand: %s", what, type_, name, entry["by"])
        try:
            return await self._turn(act, run)
        except BaseException as error:
            await asyncio.to_thread(self._record, entry | {"failed": str(error)})
            raise

    async def _turn(self, act: Activation, run: Callable[[Call], Message]) -> Message:
        found: Message = await run_turn(self._runner, act, Lifecycle("whole", SECONDS, run))
        return found


def _seen(turn: Call) -> Whole:
    """What the turn sees of its actor."""
    act = turn.act
    actor = act.kv.known_id()
    values = {} if actor is None else act.kv.raws(turn)
    batch = act.shard.committer.batch
    version = 1 if actor is None else batch.versions.get(actor) or act.store.read_version(actor)
    return Whole(act.host.type.name, act.name, version, values, act.kv.sql.pages(), act.committed_alarm())


def _put(found: Whole, replace: bool, turn: Call) -> Message:
    if not replace and _seen(turn).has_data:
        return {"exists": True}
    _begin_anew(turn, found)
    return {"exists": False}


def _remove(sum_: str, turn: Call) -> Message:
    seen = _seen(turn)
    if not seen.has_data:
        return {"missing": True, "changed": False}
    if seen.sum != sum_:
        return {"missing": False, "changed": True}
    known_numbers(turn.act)  # what may fail has to fail before the turn's end
    _begin_anew(turn, seen._replace(values={}, pages=[], alarm=None))
    turn.add(_Forgotten(turn.act.store.reply_keys(turn.act.kv.known_id() or 0)))
    return {"missing": False, "changed": False}


def _begin_anew(turn: Call, content: Whole) -> None:
    turn.cleared = True
    turn.writes = dict(content.values)
    turn.alarm = content.alarm
    turn.add(_Content(content.pages, content.version))
    turn.act.instance = None


class _Content(Effect):
    """The SQL database and the version of an actor that begins anew; its values and alarm are the turn's own."""

    __slots__ = ("_pages", "_version")

    def __init__(self, pages: list[bytes], version: int) -> None:
        self._pages = pages
        self._version = version

    def join(self, call: Call, batch: Batch) -> None:
        act = call.act
        actor = act.kv.ensure_id(batch)
        if act.kv.used_sql is not None:
            act.kv.used_sql.drop()
        batch.page_counts.pop(actor, None)
        batch.pages.pop(actor, None)
        if self._pages:
            batch.page_counts[actor] = len(self._pages)
            batch.pages[actor] = dict(enumerate(self._pages, 1))
        if self._version != 1 or actor in batch.versions or act.store.read_version(actor) != 1:
            batch.versions[actor] = self._version
        act.seq = batch.seq


class _Forgotten(Effect):
    """The events of an actor, and the replies kept for its idempotency keys, are removed."""

    __slots__ = ("_keys",)

    def __init__(self, keys: list[str]) -> None:
        self._keys = keys

    def join(self, call: Call, batch: Batch) -> None:
        act = call.act
        actor = act.kv.ensure_id(batch)
        numbers = act.events
        if numbers is not None and numbers.last:
            numbers.first = numbers.last + 1
            batch.events.pop(actor, None)
            batch.event_logs[actor] = numbers.first, numbers.last
        waiting = [key for owner, key in batch.replies if owner == actor]
        for key in (*self._keys, *waiting, *(act.keys or ())):
            batch.replies[actor, key] = None
        act.keys = {}
        act.seq = batch.seq
