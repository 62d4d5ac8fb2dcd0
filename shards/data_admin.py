"""What an operator does to the values of one actor: read one, put one, remove one.

1. Each is a turn of the actor: it waits behind the calls that came before, sees what they wrote, and is answered when
   that and its own write are durable.
2. A change is in the audit before it is made, with who asked for it (``storage/audit.py``).
3. A change drops the instance: its fields may be what the old value said. The next call builds it anew.
4. An actor that has never written anything is made only when that is asked for, and only of a class of the program.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from actord import codec
from actord.errors import BadRequest
from actord.limits import VALUE_BYTES
from actord.shards.admin import run_turn
from actord.shards.call import Call, Lifecycle
from actord.shards.kv import check_key

if TYPE_CHECKING:
    from actord.shards.admin import Handler
    from actord.shards.control import Message
    from actord.shards.dispatch import Dispatcher
    from actord.shards.turns import TurnRunner

log = logging.getLogger("actord.data")

SECONDS = 30.0


class DataAdmin:
    """``record`` writes an entry to the audit; it blocks, and may raise."""

    def __init__(self, dispatcher: Dispatcher, runner: TurnRunner, record: Callable[[dict[str, Any]], None]) -> None:
        self._dispatcher = dispatcher
        self._runner = runner
        self._record = record

    def handlers(self) -> dict[str, Handler]:
        return {"data.get": self.get, "data.put": self.put, "data.remove": self.remove}

    async def get(self, request: Message) -> Message:
        """``{"key": [type, name], "entry": key}`` -> ``{"known", "raw"}``: null where there is none, else base64."""
        return await self._turn(request, partial(_get, _key(request)))

    async def put(self, request: Message) -> Message:
        """``{"key", "entry", "raw": base64, "new": bool}`` -> ``{"known", "raw"}``, as it was before.

        With ``known`` false nothing was changed: there is no such actor, and ``new`` did not ask for it.
        """
        key = _key(request)
        try:
            check_key(key)
            raw = base64.b64decode(request["raw"], validate=True)
            codec.decode(raw)
        except (ValueError, TypeError, KeyError, binascii.Error) as error:
            raise BadRequest(f"This is no value for a key: {error}") from None
        if len(raw) > VALUE_BYTES:
            raise BadRequest(f"The value has {len(raw)} bytes encoded; the limit is {VALUE_BYTES}.")
        new = bool(request.get("new")) and request["key"][0] in self._dispatcher.hosts
        found = await self._turn(request, partial(_get, key))
        if not found["known"] and not new:
            return found
        return await self._change("put", request, partial(_put, key, raw, new), len(raw))

    async def remove(self, request: Message) -> Message:
        """``{"key", "entry"}`` -> ``{"known", "raw"}``, as it was before: null when there was none."""
        key = _key(request)
        found = await self._turn(request, partial(_get, key))
        if found["raw"] is None:
            return found
        return await self._change("rm", request, partial(_remove, key), None)

    async def _change(self, what: str, request: Message, run: Callable[[Call], Message], size: int | None) -> Message:
        type_, name = request["key"]
        entry: dict[str, Any] = {"do": what, "type": type_, "name": name, "key": request["entry"]}
        if size is not None:
            entry["bytes"] = size
        entry |= {"by": request.get("by"), "server": True}
        await asyncio.to_thread(self._record, entry)
        log.warning("%s of the key %r of %s/%r by hand: %s", what, request["entry"], type_, name, entry["by"])
        try:
            return await self._turn(request, run)
        except BaseException as error:
            await asyncio.to_thread(self._record, entry | {"failed": str(error)})
            raise

    async def _turn(self, request: Message, run: Callable[[Call], Message]) -> Message:
        type_, name = request["key"]
        act = self._dispatcher.activation(type_, name, gone=True)
        found: Message = await run_turn(self._runner, act, Lifecycle("data", SECONDS, run))
        return found


def _key(request: Message) -> str:
    key = request.get("entry")
    if type(key) is not str:
        raise BadRequest("entry is a storage key.")
    return key


def _get(key: str, turn: Call) -> Message:
    kv = turn.act.kv
    return _answer(kv.known_id() is not None, None if kv.known_id() is None else kv.raw(turn, key))


def _put(key: str, raw: bytes, new: bool, turn: Call) -> Message:
    found = _get(key, turn)
    if found["known"] or new:
        turn.writes = {key: raw}
        turn.act.instance = None
        found["known"] = True
    return found


def _remove(key: str, turn: Call) -> Message:
    found = _get(key, turn)
    if found["raw"] is not None:
        turn.writes = {key: None}
        turn.act.instance = None
    return found


def _answer(known: bool, raw: bytes | None) -> Message:
    return {"known": known, "raw": None if raw is None else base64.b64encode(raw).decode()}
