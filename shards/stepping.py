"""Begins turns, inside of a generator: the *stepper*.

A coroutine that is stepped by hand says by StopIteration that it has returned: an object, two tracebacks and the frames
in them, 0.5 µs of a call of 9. ``yield from`` takes its result without any of these, so turns begin within a generator.

1. ``send(call)`` begins a turn in the context that it is called in, and returns ENDED, with what the method returned in
   ``result``; or what the turn awaits; or it raises what the method raised.
2. A stepper whose turn awaits something is that turn's from then on; one whose turn raised is over. ``leave`` puts a
   new one in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextvars import Context, copy_context
from types import CoroutineType, coroutine
from typing import Any, Final

from actord.shards.blackbox import mark, private_box
from actord.shards.call import Call, Lifecycle, current_turn

ENDED: Final = object()

Stepper = Generator[Any, Any, None]


class Stepping:
    """The part of ``TurnRunner`` that steps coroutines."""

    send: Callable[[Any], Any]  # to the stepper that waits for a call
    context: Context  # of the last turn that has begun

    def __init__(self) -> None:
        self.box = private_box()  # the turn being stepped, for the supervisor
        self.before_turn: Callable[[Call], None] | None = None  # told of each in its own context, for traces
        self.result: Any = None
        self._stepper: Stepper
        self._make_stepper()

    def begin(self, call: Call) -> Any:
        """Begin a turn in ``context``, a new one: what ``send`` says."""
        self.context = context = copy_context()
        return context.run(self.send, call)

    def leave(self) -> Stepper:
        """The stepper of the turn that has just been begun, which is no longer ours."""
        left = self._stepper
        self._make_stepper()
        return left

    def _make_stepper(self) -> None:
        self._stepper = stepper = self._turns()
        stepper.send(None)
        self.send = stepper.send

    @coroutine
    def _turns(self) -> Stepper:
        call: Call = yield
        result: Any
        while True:
            current_turn.set(call)
            if self.before_turn is not None:
                self.before_turn(call)
            act = call.act
            method = call.method
            mark(self.box, 0, method.label, act.label)
            try:
                if type(method) is Lifecycle:
                    result = method.run(call)
                elif call.kwargs:
                    result = method.function(act.instance, *call.args, **call.kwargs)
                else:
                    result = method.function(act.instance, *call.args)
            except StopIteration as error:  # else Python would speak of a generator, which nobody wrote
                raise RuntimeError("the method raised StopIteration") from error
            if type(result) is CoroutineType:
                result = yield from result  # type: ignore[misc]  # which ``coroutine`` allows
            self.result = result
            act = call = result = None  # type: ignore[assignment]  # nothing outlives its turn here
            call = yield ENDED
