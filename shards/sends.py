"""``stub.send.method(...)``: a message that is stored in the commit of the turn that sends it, and delivered after it.

1. A message exists if the turn commits, and else it does not: it is undone with a storage block that raises, and
   forgotten with a turn that fails. It is handed to ``shards.outbox`` when the commit is durable.
2. What can be known to fail is refused at the send, in the sender's turn: a method that the type does not have,
   arguments that do not fit its signature, values that the codec does not carry. Of the receiver nothing is touched.
3. Messages have their order from their ids: those of one turn in the order of its sends, turns in the order in which
   they end. A delayed message takes its place when its delay is over.
4. Only a turn that runs may send. Sending is done when the method is called; awaiting it waits for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from actord import codec
from actord.errors import ActordError, CodecError, SendError
from actord.limits import SEND_DELAY_SECONDS_MAX, SENDS_PER_TURN, SENDS_TURN_BYTES, VALUE_BYTES
from actord.shards import alarm as clock
from actord.shards.alarm import DONE, Done
from actord.shards.call import Call, Effect, current_turn
from actord.storage.api import Batch, Message

if TYPE_CHECKING:
    from actord.shards.outbox import Outbox
    from actord.shards.registry import ActorType, Method

Delay = timedelta | int | float | None


class Sent(Effect):
    """One message on its way into its turn's commit."""

    __slots__ = ("_args", "_due", "_message", "_method", "_name", "_outbox", "_type", "total")

    def __init__(self, outbox: Outbox, type_: str, name: str, method: str, args: bytes, due: int, total: int) -> None:
        self._outbox = outbox
        self._type = type_
        self._name = name
        self._method = method
        self._args = args
        self._due = due
        self.total = total  # bytes that the turn has sent so far, this message included
        self._message: Message | None = None

    def join(self, call: Call, batch: Batch) -> None:
        act = call.act
        id_ = act.store.next_message_id()
        sender = act.kv.ensure_id(batch)
        batch.outbox[id_] = self._message = Message(
            id_, sender, self._type, self._name, self._method, self._args, self._due
        )
        act.seq = batch.seq

    def leave(self, call: Call) -> None:
        assert self._message is not None
        self._outbox.take(call.act.shard, self._message)


class SendStub:
    """One instance as a receiver of messages: calling a method here queues it. ``send(delay=...)`` delays them."""

    __slots__ = ("_delay_ms", "_name", "_outbox", "_type")

    def __init__(self, type_: ActorType, name: str, outbox: Outbox, delay_ms: int = 0) -> None:
        self._type = type_
        self._name = name
        self._outbox = outbox
        self._delay_ms = delay_ms

    def __call__(self, *, delay: Delay = None) -> SendStub:
        """The same with a delay: seconds, or a timedelta, from the send. ``SendError`` for what is none."""
        return SendStub(self._type, self._name, self._outbox, milliseconds(delay))

    def __getattr__(self, name: str) -> Callable[..., Done]:
        if name.startswith("__"):
            raise AttributeError(name)
        method = self._type.methods.get(name)
        if method is None:
            try:
                method = self._type.method(name)
            except ActordError as refusal:
                raise AttributeError(refusal.detail) from refusal

        def send(*args: Any, **kwargs: Any) -> Done:
            return self._send(method, args, kwargs)

        send.__name__, send.__doc__ = name, method.function.__doc__
        return send

    def _send(self, method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Done:
        turn = current_turn.get()
        if turn is None:
            raise SendError(
                f"send.{method.name} works only in a turn of an actor, because the message is stored in the turn's "
                "commit. From the front door, call the actor and await it, or call an actor that sends."
            )
        turn.act.kv.turn()  # over, or another task's block is open
        sent = codec.encode([list(args), kwargs])
        if len(sent) > VALUE_BYTES:
            raise CodecError(f"A message of {len(sent)} bytes: the limit is {VALUE_BYTES}. Store it, and send its key.")
        method.binder.from_call(*codec.decode(sent))
        total = len(sent)
        effects = turn.effects
        if effects is not None:
            if len(effects) >= SENDS_PER_TURN:
                raise SendError(
                    f"A turn may send {SENDS_PER_TURN:,} messages. Go on in another one, or send to itself."
                )
            for effect in reversed(effects):
                if type(effect) is Sent:
                    total += effect.total
                    break
            if total > SENDS_TURN_BYTES:
                raise SendError(f"A turn may send {SENDS_TURN_BYTES:,} bytes of arguments; this would be {total:,}.")
        due = clock.wall_ms() + 1 + self._delay_ms if self._delay_ms else 0
        turn.add(Sent(self._outbox, self._type.name, self._name, method.name, sent, due, total))
        return DONE

    def __dir__(self) -> list[str]:
        return sorted(self._type.methods)

    def __repr__(self) -> str:
        after = f" after {self._delay_ms / 1000:g} s" if self._delay_ms else ""
        return f"<sends to {self._type.name}/{self._name}{after}>"


def milliseconds(delay: Delay) -> int:
    """A delay, rounded up. ``SendError`` unless it is None, seconds or a timedelta, 0 to ten years."""
    if delay is None:
        return 0
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else delay
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise SendError(f"delay is a number of seconds or a timedelta, not {type(delay).__name__}.")
    if not 0 <= seconds <= SEND_DELAY_SECONDS_MAX:  # nan is in no range
        raise SendError(f"delay is 0 to {SEND_DELAY_SECONDS_MAX:,} seconds, not {delay!r}.")
    return math.ceil(seconds * 1000)
