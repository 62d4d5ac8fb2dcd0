"""From a frame to an admitted call: type, method, arguments, activation. What can be refused is refused here."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable
from time import monotonic
from typing import TYPE_CHECKING, Any

from actord import StatefulActor
from actord.errors import ActordError, ActorOverloaded, ActorUnavailable, BadRequest, NotFound, StoreBroken
from actord.http import Request
from actord.limits import LINK_CALLS, NAME_BYTES
from actord.settings import Actors, Http
from actord.shards.activation import Activation, Host
from actord.shards.call import REFUSAL, TRACED, Call, Sink, Trace
from actord.shards.event_streams import EventStreams
from actord.shards.eviction import Evictor
from actord.shards.gate import OutputGate
from actord.shards.idempotency import Key, Rules
from actord.shards.inbox import NOTHING, arrive, came_before, checked
from actord.shards.problem import MSGPACK_HEAD
from actord.shards.registry import ActorType, Method, Program
from actord.shards.shard import Shard
from actord.shards.slots import SLOTS, slot_of
from actord.shards.sql import SqlPool
from actord.shards.turns import TurnRunner
from actord.shards.wire import BODY_FOLLOWS, EVENTS, FULL, MSGPACK, OPENAPI, PAIR, SHED, Frame, WireError

if TYPE_CHECKING:
    from actord.shards.intake import Connection
    from actord.shards.mounts import Door, MountedDoors
    from actord.shards.waits import WaitGraph

log = logging.getLogger("actord.dispatch")

_RETRY_AFTER = 1.0
FRONTS_SECONDS = 1.0
_SLOT_NUMBERS = tuple(range(SLOTS))  # one object for each, instead of one in each activation


class Dispatcher:
    """Every entry of this worker comes through here, whichever way it came."""

    def __init__(
        self,
        program: Program,
        settings: Actors,
        runner: TurnRunner,
        gate: OutputGate,
        evictor: Evictor,
    ) -> None:
        self._program = program
        self._settings = settings
        self._runner = runner
        self._admission = runner.admission
        self._admission.on_shed = self._tell_fronts
        self._admission.on_excess = self._turn_away
        self._admission.fullness.on_change = self._tell_full
        self._gate = gate
        self._evictor = evictor
        self._pool = pool = SqlPool(settings.sql_connections)
        self._gone: dict[str, Host] = {}  # types that only the store knows, once an operator asked for one
        self.hosts = {name: Host(type_, settings, pool) for name, type_ in program.types.items()}
        # Those that callers from outside may reach: clients, by a front or directly.
        self.exposed = {name: host for name, host in self.hosts.items() if host.type.exposed}
        self.refused: Counter[str] = Counter()  # before a turn was queued, by the error's class
        self.shard_of: list[Shard | None] = []  # by slot; None: another worker's
        self.damaged: frozenset[int] = frozenset()  # slots of shards that are not served
        self.waits: WaitGraph  # set once, when the worker is composed
        self.events = EventStreams(settings.event_streams)
        self.front_door: Door | MountedDoors | None = None
        self.body_bytes = Http().body_bytes  # what a front door may take at once of a body that follows
        self.connections: set[Connection] = set()
        self.leaving = False  # a successor takes over: fronts and clients are asked to wait for it
        self.left = False  # nothing more is taken, and no link is greeted
        self.awaited: set[str] | None = None  # fronts that have not told of their sockets yet
        self._document: bytes | None = None  # OpenAPI, once it was asked for
        self.key_rules = Rules(int(settings.idempotency_ttl * 1000), settings.idempotency_keys)
        self.facts = {"front_door": program.has_front_door, "types": sorted(program.types)}

    def call(self, sink: Connection, frame: Frame, now: float) -> None:
        """A CALL frame: ``(kind, id, type, name, method, flags, deadline, body)``."""
        _, id_, type_, name, method_name, flags, deadline, body = frame
        if type(id_) is not int or not 0 <= id_ < LINK_CALLS or type(deadline) is not int or type(body) is not bytes:
            _check_frame(id_, deadline, flags, body)
        try:
            host = sink.hosts.get(type_)
            if host is None:
                raise self.unknown_type(sink, type_)
            method = host.type.methods.get(method_name)
            if method is None:
                method = host.type.method(method_name)
            args, kwargs = _arguments(method, flags, body) if flags & MSGPACK else method.binder.from_json(body)
            self._admit(sink, id_, sink.begun, host, name, method, args, kwargs, flags, deadline, now, sink.calls)
        except ActordError as error:
            self._refuse(sink, id_, flags, error)

    def callx(self, sink: Connection, frame: Frame, now: float) -> None:
        """A CALLX frame: ``(kind, id, type, name, method, extras, flags, deadline, body)``."""
        _, id_, type_, name, method_name, extras, flags, deadline, body = frame
        if type(id_) is not int or not 0 <= id_ < LINK_CALLS or type(deadline) is not int or type(body) is not bytes:
            _check_frame(id_, deadline, flags, body)
        if type(extras) is not dict or not (
            type(extras.get("key", "")) is type(extras.get("trace", "")) is type(extras.get("rid", "")) is str
        ):
            raise WireError(f"extras {extras!r:.200}")
        if "msg" in extras:
            checked(extras["msg"])
        try:
            host = sink.hosts.get(type_)
            if host is None:
                raise self.unknown_type(sink, type_)
            method = host.type.methods.get(method_name)
            if method is None:
                method = host.type.method(method_name)
            args, kwargs = _arguments(method, flags, body) if flags & MSGPACK else method.binder.from_json(body)
            call = self._admit(
                sink, id_, sink.begun, host, name, method, args, kwargs, flags, deadline, now, sink.calls
            )
            self._admitted(call, extras, flags, body)
        except ActordError as error:
            if "msg" in extras:
                self._refuse_message(sink, id_, flags, type_, name, extras["msg"], error)
                return
            if "again" in extras and error.applied == "no":  # the run before this one may have been applied
                error.applied = "unknown"
            self._refuse(sink, id_, flags, error)

    def fetch(self, sink: Connection, frame: Frame, now: float) -> None:
        """A FETCH frame: ``(kind, id, type, name, request, extras, flags, deadline, body)``."""
        _, id_, type_, name, request, extras, flags, deadline, body = frame
        _check_frame(id_, deadline, flags, body)
        try:
            host = sink.hosts.get(type_)
            if host is None:
                raise self.unknown_type(sink, type_)
            if flags & EVENTS:
                check_name(name)
                slot = slot_of(host.type.name, name)
                self.events.open(sink, id_, host, name, self._shard(slot), slot, Request.from_wire(request, body))
                return
            args = (Request.from_wire(request, body),)
            call = self._admit(
                sink, id_, sink.begun, host, name, host.type.fetch, args, {}, flags, deadline, now, sink.calls
            )
            if extras:
                self._admitted(call, extras, flags, b"")
        except ActordError as error:
            self._refuse(sink, id_, flags, error)

    def door(self, sink: Connection, frame: Frame, now: float) -> None:
        """A DOOR frame: ``(kind, id, request, flags, deadline, body)``: the user's stateless entry."""
        _, id_, request, flags, deadline, body = frame
        _check_frame(id_, deadline, flags, body)
        if type(request) is list and request[1:2] == [OPENAPI]:
            self._describe(sink, id_, flags)
            return
        door = self.front_door
        if door is None:
            self._refuse(sink, id_, flags, NotFound("This program has no front door."))
            return
        if self._runner.waiting >= self._admission.most and sink.outside:
            self._refuse(
                sink, id_, flags, ActorOverloaded("The worker has too many calls waiting.", retry_after=_RETRY_AFTER)
            )
            return
        assert sink.begun is not None
        sink.begun[id_] = 1  # it may call actors from its first moment on
        asked = Request.from_wire(request, body)
        if flags & BODY_FOLLOWS:
            asked.body_follows(sink.open_body(id_), self.body_bytes)
        door.begin(sink, id_, asked, flags, deadline, now)

    def unknown_type(self, sink: Connection, type_: str) -> ActordError:
        """What to answer to a caller that can reach no such type."""
        return self._program.unknown_type(type_, outside=sink.hosts is self.exposed)

    def _describe(self, sink: Connection, id_: int, flags: int) -> None:
        from actord.shards.openapi import document  # only a worker that is asked for it pays for it

        if self._document is None:
            try:
                self._document = document(self._program)
            except Exception:  # classes of the user's have a say in it
                log.exception("the program can't be described")
                self._document = b""
        if not self._document:
            self._refuse(sink, id_, flags, ActordError("The program can't be described; the log says why."))
            return
        sink.put_reply(id_, 200, self._document, None)

    def local(
        self,
        sink: Sink,
        type_: str,
        name: str,
        method: Method,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        body: bytes,
        extras: dict[str, Any],
        deadline: int,
    ) -> Call:
        """A call from this process. Values have passed the codec. Raises what can be refused at once.

        ``body`` is what a frame would carry, ``extras`` as in the wire's CALLX.
        """
        now = monotonic()
        host = self.hosts[type_]
        call = self._admit(sink, 0, bytearray(1), host, name, method, args, kwargs, MSGPACK, deadline, now, None)
        if extras:
            self._admitted(call, extras, MSGPACK | PAIR, body)
        return call

    def _turn_away(self, call: Call) -> None:
        """Answer a call that was let in and can't have its turn in time."""
        self._runner.waiting -= 1
        self.refused[ActorOverloaded.__name__] += 1
        call.fail(ActorOverloaded("The worker has too many calls waiting.", retry_after=_RETRY_AFTER))
        self._gate.release((call,))

    def _tell_fronts(self, share: float) -> None:
        for connection in self.connections:
            if connection.caller.startswith("front-"):
                connection.put_frame((SHED, share))

    def _tell_full(self, act: Activation, full: bool) -> None:
        for connection in self.connections:
            if connection.caller.startswith("front-"):
                connection.put_frame((FULL, act.host.type.name, act.name, full))

    def _admitted(self, call: Call, extras: dict[str, Any], flags: int, body: bytes) -> None:
        """What concerns calls with extras alone. Their turn has not begun: admission only queues it."""
        message = extras.get("msg")
        if message is not None:
            call.once = arrive(call.act.shard, message)
            call.more = True
        key = extras.get("key")
        if key is not None:
            call.once = Key(key, call.method.label, flags, body, self.key_rules, again="again" in extras)
            call.more = True
        if "trace" in extras or "rid" in extras:
            call.trace = Trace(extras.get("trace", ""), extras.get("rid", ""))
            call.flags |= TRACED
        caller = extras.get("from")
        if caller is not None:
            type_, name, born = caller
            call.origin = ((type_, name), born)
            if call.act.turn is not None:  # it waits behind another turn
                self.waits.admitted(call)

    def _admit(
        self,
        sink: Sink,
        id_: int,
        begun: Any,
        host: Host,
        name: str,
        method: Method,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        flags: int,
        deadline: int,
        now: float,
        calls: dict[int, Call] | None,
    ) -> Call:
        runner = self._runner
        act = host.activations.get(name)
        if runner.waiting >= self._admission.most and self._admission.refuses(
            runner.waiting, sink.outside, act
        ):  # before anything is put into memory for the call
            raise ActorOverloaded("The worker has too many calls waiting.", retry_after=_RETRY_AFTER)
        if act is None:
            act = self._activate(host, name)
        if act.mailbox is not None and len(act.mailbox) >= host.mailbox:
            if sink.outside:
                self._admission.fullness.refused(act, now)
            raise ActorOverloaded(
                f"{len(act.mailbox)} calls wait for this {host.type.name} already.", retry_after=_RETRY_AFTER
            )
        call = Call(sink, id_, begun, act, method, args, kwargs, flags, deadline, now)
        if calls is not None:
            calls[id_] = call
        runner.admit(call)
        return call

    def await_fronts(self, names: Iterable[str]) -> None:
        """Take no call before these fronts have told of their sockets, or have had the time to."""
        self.awaited = set(names)
        asyncio.get_running_loop().call_later(FRONTS_SECONDS, self._go_on)

    def front_is_here(self, name: str) -> None:
        if self.awaited is not None:
            self.awaited.discard(name)
            if not self.awaited:
                self._go_on()

    def _go_on(self) -> None:
        if self.awaited is not None:
            self.awaited = None
            for connection in list(self.connections):
                asyncio.get_running_loop().call_soon(connection.go_on)

    @property
    def open_databases(self) -> int:
        """SQL databases of instances that are kept open."""
        return len(self._pool.open)

    def check_room(self) -> None:
        """``ActorOverloaded`` when no turn more may wait in this worker."""
        if self._runner.waiting >= self._settings.worker_queue:
            raise ActorOverloaded("The worker has too many calls waiting.", retry_after=_RETRY_AFTER)

    def admit_event(self, call: Call) -> None:
        """Queue a socket's event. Its front bounds how many wait for one actor."""
        self._runner.admit(call)

    def find(self, key: tuple[str, str]) -> Activation | None:
        """The activation of a key, None when there is none."""
        host = self.hosts.get(key[0])
        return host.activations.get(key[1]) if host is not None else None

    def activation(self, type_: str, name: str, *, gone: bool = False) -> Activation:
        """The activation of a key, made when there is none. Raises what a call to it would be refused with.

        ``gone``: the type need not be in the program; then the activation is good for turns of the runtime alone.
        """
        host = self.hosts.get(type_)
        if host is None and gone and type_.isidentifier():
            host = self._gone.get(type_)
            if host is None:
                stand_in = ActorType(type(type_, (StatefulActor,), {}), "")
                host = self._gone[type_] = Host(stand_in, self._settings, self._pool)
        if host is None:
            host = self.hosts[self._program.type(type_).name]
        return host.activations.get(name) or self._activate(host, name)

    def _activate(self, host: Host, name: str) -> Activation:
        check_name(name)
        slot = _SLOT_NUMBERS[slot_of(host.type.name, name)]
        act = Activation(host, name, self._shard(slot), slot)
        host.activations[name] = act
        host.created += 1
        self._evictor.add(act)
        return act

    def _shard(self, slot: int) -> Shard:
        shard = self.shard_of[slot]
        if shard is None:
            if slot in self.damaged:
                raise ActorUnavailable("The shard of this name is damaged and not served. The server's log says why.")
            raise ActorUnavailable("This worker does not own that name.", retry_after=_RETRY_AFTER)
        return shard

    def _refuse(self, sink: Connection, id_: int, flags: int, error: ActordError) -> None:
        self.refused[type(error).__name__] += 1
        call = Call(sink, id_, None, None, REFUSAL, (), {}, flags, 0, monotonic())  # type: ignore[arg-type]
        call.fail(error)
        self._gate.release((call,))  # what took the frame flushes

    def _refuse_message(
        self, sink: Connection, id_: int, flags: int, type_: str, name: str, mark: Any, error: ActordError
    ) -> None:
        """What is refused now may have taken effect before: with another version of the program."""
        shard = self.shard_of[slot_of(type_, name)]
        try:
            if shard is None or not came_before(shard, mark):
                self._refuse(sink, id_, flags, error)
                return
        except ActordError as unsure:
            if shard is not None and isinstance(unsure, StoreBroken):
                shard.committer.break_off(unsure)
            self._refuse(sink, id_, flags, unsure)
            return
        call = Call(sink, id_, None, None, REFUSAL, (), {}, flags, 0, monotonic())  # type: ignore[arg-type]
        call.body, call.head = NOTHING, MSGPACK_HEAD
        self._gate.release((call,))  # what took the frame flushes


def _arguments(method: Method, flags: int, body: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if not flags & MSGPACK:
        return method.binder.from_json(body)
    if flags & PAIR:
        return method.binder.from_pair(body)
    return method.binder.from_msgpack(body)


def _check_frame(id_: Any, deadline: Any, flags: Any, body: Any) -> None:
    if type(id_) is not int or not 0 <= id_ < LINK_CALLS or type(deadline) is not int or type(flags) is not int:
        raise WireError(f"the call id {id_!r}, the deadline {deadline!r} or the flags {flags!r} are out of range")
    if type(body) is not bytes:
        raise WireError(f"a body of type {type(body).__name__}")


def check_name(name: str) -> None:
    """``BadRequest`` unless the name is 1 to 512 bytes of UTF-8 without NUL."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise BadRequest("An actor's name must be valid Unicode.") from None
    if not 1 <= size <= NAME_BYTES or "\0" in name:
        raise BadRequest(f"An actor's name has 1 to {NAME_BYTES} bytes of UTF-8 without NUL; this one has {size}.")
