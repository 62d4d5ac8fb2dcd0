"""The events of a link's sockets: from frames to turns, and back to WS_DONE.

Promises:

1. The events of one socket become turns in their order; each is answered by exactly one WS_DONE, when its turn is
   durable, in the same write as what the turn sends.
2. When the turn of an event begins, its number is noted in the begun map, so that the front knows after a crash.
3. A handler that fails or runs over its time closes its socket with 1011, and the messages behind it are not handled;
   ``web_socket_close`` still runs. A worker that can't take a message closes with 1013.
4. Before the client is let in, what the runtime refuses, and what ``web_socket`` refuses by raising an ``ActorError``,
   is an HTTP answer.
5. ``web_socket_close`` runs once for every socket that was let in, also when the front goes away with all of its own.

Who serves sockets of the front door puts a ``Party`` of its own into ``SocketEvents.parties``.
"""

from __future__ import annotations

import logging
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec
from actord.errors import ActordError, ActorOverloaded, NotFound
from actord.http import Request
from actord.limits import LINK_CALLS, LINK_SOCKETS, SOCKET_REASON_BYTES
from actord.shards.call import NO_DEADLINE, Call, Sink, current_turn
from actord.shards.problem import problem_reply
from actord.shards.sockets import Accept, Socket, offered_subprotocols
from actord.shards.wire import (
    WS_ACCEPT,
    WS_CLOSE,
    WS_CLOSED,
    WS_DONE,
    WS_HELD,
    WS_MESSAGE,
    WS_OPEN,
    WS_REFUSE,
    Frame,
    WireError,
)

if TYPE_CHECKING:
    from actord.shards.activation import Host
    from actord.shards.dispatch import Dispatcher
    from actord.shards.intake import Connection

log = logging.getLogger("actord.sockets")

ABNORMAL, FAILED, RESTARTED, TRY_LATER = 1006, 1011, 1012, 1013
NO_HANDLER = "actor has no web_socket handler"
FAILURES = frozenset({"ActorMethodError", "ActorMethodTimeoutError"})  # of the handler, not of those who ask for it
_SEQ_MAX = 1 << 62


class Party:
    """Who gets the events of one socket. Each is answered by ``SocketEvents.done``."""

    __slots__ = ()

    def message(self, seq: int, data: str | bytes) -> None:
        raise NotImplementedError

    def closed(self, seq: int, code: int, reason: str) -> None:
        raise NotImplementedError

    def lost(self) -> None:
        """The front has gone, and the socket with it."""
        raise NotImplementedError


class SocketEvents:
    """The sockets of one link. ``map`` is the part of the link's begun map that is theirs."""

    def __init__(self, connection: Connection, dispatcher: Dispatcher) -> None:
        assert connection.begun is not None
        self.connection = connection
        self.dispatcher = dispatcher
        self.map = memoryview(connection.begun)[LINK_CALLS:].cast("Q")
        self.parties: dict[int, Party] = {}

    def take(self, frame: Frame) -> None:
        """One frame. Raises ``WireError`` and the like for what makes no sense."""
        kind = frame[0]
        if kind == WS_HELD:
            for held in frame[1]:
                self._hold(*held)
            return
        sid, seq = frame[1], frame[2]
        if type(sid) is not int or not 0 <= sid < LINK_SOCKETS or type(seq) is not int or not 0 < seq < _SEQ_MAX:
            raise WireError(f"the event {seq!r} of socket {sid!r}")
        if kind == WS_MESSAGE:
            _, _, _, data = frame
            if type(data) is not str and type(data) is not bytes:
                raise WireError(f"a message of type {type(data).__name__}")
            party = self.parties.get(sid)
            if party is None:
                raise WireError(f"socket {sid} is not open")
            party.message(seq, data)
        elif kind == WS_CLOSED:
            _, _, _, code, reason = frame
            if type(code) is not int or type(reason) is not str:
                raise WireError(f"the end {code!r} {reason!r:.200} of a socket")
            closing = self.parties.get(sid)
            if closing is not None:
                closing.closed(seq, code, reason)
            else:  # it was refused meanwhile
                self.done(sid, seq)
        elif sid in self.parties:
            raise WireError(f"socket {sid} is open already")
        elif kind == WS_OPEN:
            _, _, _, uid, type_, name, request, deadline, *forwarded = frame
            _check(str, uid, type_, name)
            _check(int, deadline)
            request = Request.from_wire(request, b"")
            self._open(sid, seq, uid, type_, name, request, deadline, forwarded=bool(forwarded))
        else:
            _, _, _, uid, request, deadline = frame
            _check(str, uid)
            _check(int, deadline)
            self._door(sid, seq, request, deadline)

    def done(self, sid: int, seq: int) -> None:
        self.connection.put_socket((WS_DONE, sid, seq), 0)

    def refuse(self, sid: int, seq: int, error: ActordError) -> None:
        """Answer an opening over HTTP."""
        status, body, head = problem_reply(error, msgpack=False)
        self.connection.put_socket((WS_REFUSE, sid, status, body, head), 0)
        self.done(sid, seq)

    def _open(
        self,
        sid: int,
        seq: int,
        uid: str,
        type_: str,
        name: str,
        request: Request,
        deadline: int,
        *,
        forwarded: bool,
    ) -> None:
        """``forwarded``: by the front door, which reaches all types."""
        try:
            if not forwarded and type_ not in self.connection.hosts:
                raise self.dispatcher.unknown_type(self.connection, type_)
            act = self.dispatcher.activation(type_, name)
        except ActordError as error:
            self.refuse(sid, seq, error)
            return
        host = act.host
        socket = Socket(self.connection, sid, uid, host.room(name))
        socket.offered = offered_subprotocols(request)
        self.parties[sid] = party = Guest(self, socket, host)
        if host.type.web_socket is None:
            self.connection.put_socket((WS_ACCEPT, sid, None, b""), 0)
            self.connection.put_socket((WS_CLOSE, sid, FAILED, NO_HANDLER), 0)
            self.done(sid, seq)
            return
        socket.opening = Accept(socket)
        party.admit(WS_OPEN, seq, host.type.web_socket, (socket, request), deadline)

    def _hold(
        self,
        sid: int,
        uid: str,
        type_: str,
        name: str,
        subprotocol: str | None,
        tags: list[str],
        attachment: bytes | None,
    ) -> None:
        """A socket that was let in before this worker began."""
        _check(str, uid, type_, name, *tags, *(() if subprotocol is None else (subprotocol,)))
        _check(bytes, *(() if attachment is None else (attachment,)))
        if type(sid) is not int or not 0 <= sid < LINK_SOCKETS or sid in self.parties:
            raise WireError(f"the socket {sid!r} is held twice, or has no number")
        host = self.dispatcher.hosts.get(type_)
        if host is None:  # the program does not have it any more
            self.connection.put_socket((WS_CLOSE, sid, FAILED, NO_HANDLER), 0)
            self.parties[sid] = Nobody(self, sid)
            return
        socket = Socket(self.connection, sid, uid, host.room(name))
        socket.subprotocol = subprotocol
        socket.state = socket.kept = (tuple(tags), attachment)
        socket.room.add(socket)
        self.parties[sid] = Guest(self, socket, host)

    def _door(self, sid: int, seq: int, request: list[Any], deadline: int) -> None:
        door = self.dispatcher.front_door
        if door is None:
            self.refuse(sid, seq, NotFound("This program has no front door."))
            return
        self.map[sid] = seq
        party = door.open_socket(self, sid, seq, Request.from_wire(request, b""), deadline)
        if party is not None:
            self.parties[sid] = party

    def lost(self) -> None:
        """The front has gone."""
        parties, self.parties = self.parties, {}
        for party in parties.values():
            party.lost()


class Nobody(Party):
    """Behind a socket whose type the program does not have any more."""

    __slots__ = ("_events", "_sid")

    def __init__(self, events: SocketEvents, sid: int) -> None:
        self._events = events
        self._sid = sid

    def message(self, seq: int, data: str | bytes) -> None:
        self._events.done(self._sid, seq)

    def closed(self, seq: int, code: int, reason: str) -> None:
        self._events.parties.pop(self._sid, None)
        self._events.done(self._sid, seq)

    def lost(self) -> None:
        pass


class Guest(Party):
    """An actor's socket."""

    __slots__ = ("_events", "_gone", "_host", "_opening", "socket")

    def __init__(self, events: SocketEvents, socket: Socket, host: Host) -> None:
        self._events = events
        self._host = host
        self.socket = socket
        self._opening: Call | None = None
        self._gone = False  # its end is known, and queued

    def message(self, seq: int, data: str | bytes) -> None:
        type_ = self._host.type
        if self.socket.broken or type_.web_socket_message is None:
            self._events.done(self.socket.sid, seq)
            if type_.web_socket is None:
                self.fail(FAILED, NO_HANDLER)
            return
        self.admit(WS_MESSAGE, seq, type_.web_socket_message, (self.socket, data))

    def closed(self, seq: int, code: int, reason: str) -> None:
        self._gone = True
        if self._opening is not None:
            self._opening.cancelled = True
        self.admit(WS_CLOSED, seq, self._host.type.web_socket_close, (self.socket, code, reason))

    def admit(self, kind: int, seq: int, method: Any, args: tuple[Any, ...], deadline: int = NO_DEADLINE) -> None:
        """Queue the turn of an event. The fronts bound how many of one actor there are; the worker bounds the rest."""
        dispatcher = self._events.dispatcher
        event = Event(self, kind, seq)
        try:
            if kind != WS_CLOSED:
                dispatcher.check_room()
            act = dispatcher.activation(self.socket.room.type, self.socket.room.name)
        except ActordError as error:
            event.refuse(error)
            return
        call = Call(event, 0, event, act, method, args, {}, 0, deadline, monotonic())
        if kind == WS_OPEN:
            self._opening = call
        dispatcher.admit_event(call)

    def fail(self, code: int, reason: str) -> None:
        """The socket can't go on: close it, and handle none of the messages that wait."""
        socket = self.socket
        if socket.broken:
            return
        socket.broken = True
        self._events.connection.put_socket((WS_CLOSE, socket.sid, code, reason), 0)
        self._drop_messages()

    def _drop_messages(self) -> None:
        room = self.socket.room
        act = self._events.dispatcher.find((room.type, room.name))
        for call in (act.mailbox or ()) if act is not None else ():
            event = call.sink
            if type(event) is Event and event.guest is self and event.kind == WS_MESSAGE:
                call.cancelled = True

    def ended(self, kind: int, seq: int, call: Call, error: dict[str, Any] | None) -> None:
        """The turn of an event is durable (``error`` is None), or there was none: what follows from it."""
        events, socket = self._events, self.socket
        if kind == WS_OPEN:
            let_in = socket.opening is None  # it was sent something at once
            self._opening = None
            socket.opening = None
            if error is not None:
                socket.room.remove(socket)
                if let_in or error["name"] in FAILURES:
                    events.connection.put_socket((WS_ACCEPT, socket.sid, None, b""), 0)
                    self.fail(FAILED, "the handler failed")
                else:
                    events.connection.put_socket((WS_REFUSE, socket.sid, call.status, call.body, call.head), 0)
                    if not self._gone:
                        del events.parties[socket.sid]
        elif kind == WS_CLOSED:
            events.parties.pop(socket.sid, None)
            socket.room.remove(socket)
        elif error is not None:
            self.fail(*_code(error))
        events.done(socket.sid, seq)

    def lost(self) -> None:
        """Nobody hears of it but the actor."""
        if self._gone:
            return
        self._gone = True
        if self._opening is not None:
            self._opening.cancelled = True
        self._drop_messages()
        self.socket.closing = self.socket.closed = True
        self.socket.room.changed()
        self.admit(WS_CLOSED, 0, self._host.type.web_socket_close, (self.socket, ABNORMAL, ""))


class Event(Sink):
    """One event on its way through its turn. It is also what the turn marks as begun."""

    __slots__ = ("guest", "kind", "seq")

    def __init__(self, guest: Guest, kind: int, seq: int) -> None:
        self.guest = guest
        self.kind = kind
        self.seq = seq

    def __setitem__(self, _id: int, begun: int) -> None:
        if self.seq:
            self.guest._events.map[self.guest.socket.sid] = self.seq if begun else self.seq - 1

    def put(self, call: Call) -> None:
        if call.status < 400:
            if self.kind == WS_MESSAGE:  # the hot path
                guest = self.guest
                guest._events.connection.put_socket((WS_DONE, guest.socket.sid, self.seq), 0)
            else:
                self.guest.ended(self.kind, self.seq, call, None)
        else:
            error = msgspec.json.decode(call.body)
            if call.cancelled and self.kind == WS_MESSAGE:
                self.guest._events.done(self.guest.socket.sid, self.seq)
            else:
                self.guest.ended(self.kind, self.seq, call, error)

    def refuse(self, error: ActordError) -> None:
        """There is no turn for it."""
        call = Call(self, 0, None, None, None, (), {}, 0, 0, 0.0)  # type: ignore[arg-type]
        call.fail(error)
        self.put(call)

    def flush(self) -> None:
        self.guest._events.connection.flush()


def _code(error: dict[str, Any]) -> tuple[int, str]:
    """How a socket ends whose message failed so."""
    if error["applied"] == "unknown" and error["name"] == "ActorOutputGateError":
        return RESTARTED, "whether the message was handled is unknown"
    if error["name"] == ActorOverloaded.__name__:
        return TRY_LATER, "the worker is overloaded"
    return FAILED, "the handler failed"


async def connect(handler: Any, instance: Any, socket: Socket, request: Request) -> None:
    """The turn of an opening."""
    turn = current_turn.get()
    assert turn is not None
    assert socket.opening is not None
    turn.add(socket.opening)
    socket.room.add(socket)
    await handler(instance, socket, request)


async def disconnect(handler: Any, instance: Any, socket: Socket, code: int, reason: str) -> None:
    """The turn of the end. Nobody hears of a socket that was never let in."""
    if socket not in socket.room.members:
        return
    socket.closing = socket.closed = True
    socket.room.remove(socket)
    if handler is not None:
        await handler(instance, socket, code, reason[:SOCKET_REASON_BYTES])


def _check(kind: type, *fields: Any) -> None:
    for field in fields:
        if type(field) is not kind:
            raise WireError(f"the field {field!r:.200} of a socket is no {kind.__name__}")
