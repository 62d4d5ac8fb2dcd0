"""A client's socket until it is one: the wait for whoever decides about it, and the answer to the handshake.

1. The answer is one: 101, or a refusal as any other HTTP answer, never both.
2. A client that went away while it waited is not let in; who is behind it hears of that if it had heard of the opening.
3. The front door may leave the decision to an actor: the socket then moves to the link of that actor's worker.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from actord.errors import ActordError, ActorUnavailable
from actord.shards.wire import WS_CLOSED, WS_OPEN, Frame
from websockets.extensions.permessage_deflate import PerMessageDeflate

if TYPE_CHECKING:
    from actord.server.access import Right
    from actord.server.handshake import Handshake
    from actord.server.hub import SocketHub
    from actord.server.relay import Key, Relay, Room
    from actord.server.upgrade import UpgradeExchange
    from actord.server.websocket import WebSocket

ABNORMAL = 1006

# OPENING: not yet a WebSocket for the client. CLOSING: our close frame was sent. ENDED: nothing more is said or heard.
OPENING, OPEN, CLOSING, ENDED = 0, 1, 2, 3


class Opening(asyncio.Protocol):
    """The part of ``WebSocket`` that the relay and the handshake need."""

    __slots__ = (
        "_bits",
        "_early",
        "_exchange",
        "_forward",
        "_handshake",
        "_hub",
        "_reported",
        "_state",
        "_transport",
        "accepted",
        "attachment",
        "deadline",
        "peer",
        "pending",
        "relay",
        "right",
        "room",
        "sid",
        "subprotocol",
        "tags",
        "uid",
    )

    relay: Relay
    room: Room
    sid: int

    def __init__(
        self, hub: SocketHub, exchange: UpgradeExchange, handshake: Handshake, uid: str, peer: str, deadline: int
    ) -> None:
        # for life
        self._hub = hub
        self.uid = uid
        self.peer = peer
        self.right: Right | None = None  # by which it was allowed, while tokens are asked for
        self.deadline = deadline  # for the opening, in milliseconds of CLOCK_MONOTONIC
        # what the actor keeps with the socket
        self.subprotocol: str | None = None
        self.tags: list[str] = []
        self.attachment: bytes | None = None
        # the opening
        self.accepted = False
        self._exchange: UpgradeExchange | None = exchange
        self._handshake: Handshake | None = handshake
        self._forward: tuple[Key, list[Any], bytes] | None = None
        self._early: list[bytes] | None = None  # sent by the actor before the answer has left
        self._bits = 0  # window of permessage-deflate; 0: none
        for extension in handshake.protocol.extensions:
            if isinstance(extension, PerMessageDeflate):
                self._bits = extension.local_max_window_bits
        # changing
        self._state = OPENING
        self._transport: asyncio.Transport | None = None
        self._reported = False  # whoever is behind it knows of the end
        self.pending: deque[Frame] | None = None  # events that are not done; the relay's

    def accept(self, subprotocol: str | None, head: bytes) -> None:
        """The handler lets the client in."""
        if self.accepted:
            return
        self.accepted = True
        self.subprotocol = subprotocol
        handshake, exchange = self._handshake, self._exchange
        assert handshake is not None
        self._handshake = None
        if exchange is None:  # the client has gone meanwhile
            return
        self._state = OPEN
        self._early = []
        exchange.switch(handshake.answer(self._hub.date, subprotocol, head))

    def refuse(self, status: int, body: bytes, head: bytes | None) -> None:
        """An HTTP answer instead of a socket."""
        self._state = ENDED
        exchange, self._exchange = self._exchange, None
        self._handshake = None
        if exchange is not None:
            exchange.refuse(status, body, head)

    def fail(self, error: ActordError) -> None:
        """The same with a problem document."""
        self.refuse(*self._hub.problem(error))

    def forward(self, type_: str, name: str, request: list[Any], head: bytes) -> None:
        """The front door leaves the socket to an actor. It moves once the door's own event is done."""
        self._forward = ((type_, name), request, head)

    def opening_done(self) -> None:
        forward, self._forward = self._forward, None
        if self.accepted:
            return
        if forward is not None and self._exchange is not None:
            self.relay.leave(self)
            key, request, head = forward
            assert self._handshake is not None
            self._handshake.lines = head
            self._reported = False
            try:
                self._hub.relay_of(*key).enter(cast("WebSocket", self), key)
            except ActordError as error:
                self.fail(error)
                return
            self.relay.event(self, WS_OPEN, self.uid, *key, request, self.deadline, True)
        elif not self.pending:
            self.relay.leave(self)

    def gone(self) -> None:
        """The client went away before it was let in."""
        self._exchange = None
        self._state = ENDED
        if not self._reported and self._transport is None:
            self._reported = True
            if not self.relay.withdraw(self):
                self.relay.event(self, WS_CLOSED, ABNORMAL, "")

    def expire(self, now_ms: float) -> None:
        """An opening that has not begun by its deadline is not made."""
        if self._state == OPENING and now_ms > self.deadline and not self.relay.begun(self):
            self.fail(ActorUnavailable("The worker could not take the socket in time.", retry_after=1))
            self.gone()

    def released(self) -> None:
        """The relay has forgotten the socket."""
        raise NotImplementedError
