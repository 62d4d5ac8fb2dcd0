"""Runs turns: one at a time for each key, first in first out; other keys run whenever a turn awaits.

1. A turn runs inside an asyncio task, so that ``asyncio.timeout``, ``current_task`` and libraries work; but no task is
   made for a turn that never suspends. One task, the *pump*, steps coroutines by hand. A coroutine that suspends keeps
   the task, which then belongs to that turn alone, and another task becomes the pump. A task for every call measured
   10 % of throughput.
2. Every turn has a copy of the context of its own: what it sets in context variables dies with it.
3. When a turn ends, is over its time or is aborted, it is *over*: nothing that it still does has any effect, and only
   then does the next turn of its key begin.
4. A call is marked in its link's begun map before the clock is looked at and the turn begins; one that is late or was
   given up is unmarked and refused instead.
5. A turn that had written and fails takes its instance with it: the object's fields may be ahead of storage.
6. After a few milliseconds of turns replies leave and what has arrived is read (shards/slices.py).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Generator
from contextvars import Context
from time import monotonic
from types import coroutine
from typing import TYPE_CHECKING, Any

from actord.errors import (
    ActordError,
    ActorUnavailable,
    BlockConcurrencyTimeoutError,
    CodecError,
    InstanceAborted,
    StoreBroken,
)
from actord.http import Response
from actord.shards.activation import Activation
from actord.shards.admission import Admission
from actord.shards.blackbox import COMMITTING, NOTHING, mark
from actord.shards.blocking import BLOCKING_SECONDS, BlockingSteps
from actord.shards.call import NO_DEADLINE, Call, Lifecycle, Sink, as_turn
from actord.shards.lifecycle import activate, build, deactivate
from actord.shards.problem import as_error, log_failure, result_error, timeout_error
from actord.shards.slices import LOOK_SECONDS, SHORT_SECONDS, SLICE_SECONDS, STEP_SECONDS, Slices, give_way
from actord.shards.stepping import ENDED, Stepper, Stepping

if TYPE_CHECKING:
    from actord.shards.gate import OutputGate

log = logging.getLogger("actord.turns")

_NOBODY = Sink()


class TurnRunner(Stepping):
    """The pump of one worker."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, gate: OutputGate, env: Any, *, call_timeout: float, init_timeout: float
    ) -> None:
        super().__init__()
        self._loop = loop
        self._gate = gate
        self._env = env
        self._call_timeout = call_timeout
        self._initialise = Lifecycle("on_activate", init_timeout, activate)
        self._deactivate = Lifecycle("on_deactivate", init_timeout, deactivate)
        self._ready: deque[Call] = deque()
        self.admission = Admission(self._ready)
        self.slices = Slices()
        self._slice_end = 0.0  # the first look at it is due
        self._slice_limit = 0.0
        self._commit_due = 0.0  # whoever waits for it
        self._prompt = False  # a turn has ended whose key has no more calls waiting
        self._parked: asyncio.Future[None] | None = None
        self.tasks: set[asyncio.Task[None]] = set()  # that run turns, or wait for one
        self._touched: dict[Any, None] = {}  # committers that may have a batch to close
        self.waiting = 0  # calls admitted whose turn has not begun
        self.deepest = 0  # the longest mailbox since somebody set this to 0
        self.suspended = 0  # turns that wait for something
        self.stopped = False
        self.now_running: Call | None = None  # the turn being stepped at this moment, for whoever looks from outside
        self.on_bug: Callable[[BaseException], None] = lambda bug: None  # the worker ends the process
        self._blocking = BlockingSteps()
        self.tick = 0
        self._start_pump()

    # -- admission

    def admit(self, call: Call) -> None:
        """Queue a call behind those of its key."""
        act = call.act
        self.waiting += 1
        if act.busy:
            if act.mailbox is None:
                act.mailbox = deque()
            act.mailbox.append(call)
            if len(act.mailbox) > self.deepest:
                self.deepest = len(act.mailbox)
            return
        act.busy = True
        self._make_ready(call)

    def deactivate(self, act: Activation) -> Call:
        """Run an idle instance's ``on_deactivate`` as a turn; it is dropped at its end."""
        self.admit(turn := self._lifecycle(act, self._deactivate))
        return turn

    def stop(self) -> None:
        """Begin no more turns."""
        self.stopped = True

    def _make_ready(self, call: Call) -> None:
        self._ready.append(call)
        parked = self._parked
        if parked is not None:
            self._parked = None
            if not parked.done():  # somebody may just have cancelled the pump's task: then its end starts another
                parked.set_result(None)

    def _lifecycle(self, act: Activation, which: Lifecycle) -> Call:
        return Call(_NOBODY, 0, bytearray(1), act, which, (), {}, 0, NO_DEADLINE, monotonic())

    # -- the pump

    def _start_pump(self) -> None:
        task = self._loop.create_task(self._pump_task())
        self.tasks.add(task)
        task.add_done_callback(self._pump_ended)

    def _pump_ended(self, task: asyncio.Task[None]) -> None:
        """A task that pumped has ended. After an error of ours nothing would run any more: do not hide it."""
        self.tasks.discard(task)
        if not task.cancelled() and (bug := task.exception()) is not None:
            log.critical("the worker's own code failed: %r", bug, exc_info=bug)
            self.on_bug(bug)

    async def _pump_task(self) -> None:
        await self._pump()

    @coroutine
    def _pump(self) -> Generator[Any, Any, None]:
        ready, slices = self._ready, self.slices
        task = asyncio.current_task()
        assert task is not None
        late = monotonic() > (slice_end := self._slice_end)  # the turns before this pump awaited something
        while True:
            if late or not ready:
                if ready and slices.goes_on(now := monotonic(), self._slice_limit):
                    slice_end, late = now + STEP_SECONDS, False
                    continue
                slices.last = None
                now = monotonic()
                if ready and slices.short and not self._prompt and now < self._commit_due:
                    self._settle(commit=False)
                else:
                    self._settle()
                    self._commit_due = now + SLICE_SECONDS
                self.admission.look(now, self.waiting)
                slices.ended(now, bool(ready))
                if ready and slices.short:
                    give_way()
                self._parked = parked = None if ready else self._loop.create_future()
                try:
                    yield from parked or (None,)
                except asyncio.CancelledError:  # somebody kept this task from a turn that is over
                    if self._parked is parked:
                        self._parked = None
                    if self.stopped:
                        self._settle()
                    else:
                        self._start_pump()
                    return
                now = monotonic()
                slice_end = self._slice_end = now + (SHORT_SECONDS if slices.short else LOOK_SECONDS)
                self._slice_limit = now + SLICE_SECONDS
                late = False
                if ready:
                    slices.last, slices.names = ready[-1], len(ready)
                continue
            left = self._run(task, slice_end)
            if left is None:
                late = True
                continue
            self._start_pump()
            if left:  # else a turn cancelled the task it ran in: the next one must not feel it
                yield from self._suspended(task, *left)
            return

    def _run(self, task: asyncio.Task[Any], slice_end: float) -> tuple[Any, ...] | None:
        """Run turns until the slice is over (None), one awaits something, or one has cancelled the task (())."""
        ready = self._ready
        while ready:
            call: Call = ready.popleft()
            if self.stopped or not self._begin(call):
                if monotonic() > slice_end:
                    break
                continue
            self.now_running = call
            try:
                yielded = self.begin(call)
            except BaseException as error:
                self.leave()
                self._fail(call, error)
            else:
                if yielded is not ENDED:
                    return call, self.context, self.leave(), yielded
                self._succeed(call, self.result)
            if task.cancelling():
                return ()
            if call.ended > slice_end:
                break
        return None

    def _suspended(
        self, task: asyncio.Task[Any], call: Call, context: Context, stepper: Stepper, yielded: Any
    ) -> Generator[Any, Any, None]:
        """Carry a turn that awaits something to its end, in a task that is now its own."""
        step: Callable[[Any], Any]
        call.task = task
        self.suspended += 1
        took = monotonic() - call.started
        if took > BLOCKING_SECONDS:
            self._blocking.note(call, took)
        call.timer = self._loop.call_later(max(0.0, call.limit - took), self._run_out_of_time, call)
        try:
            while True:
                try:
                    sent = yield yielded
                except BaseException as thrown:
                    step, argument = stepper.throw, thrown
                else:
                    step, argument = stepper.send, sent
                self.now_running = call
                mark(self.box, 0, call.method.label, call.act.label)
                began = monotonic()
                try:
                    yielded = context.run(step, argument)
                except BaseException as error:
                    if not call.over:
                        self._fail(call, error)
                    return
                else:
                    if yielded is ENDED:
                        if not call.over:
                            self._succeed(call, self.result)
                        return
                finally:
                    self.now_running = None
                    self.box[0] = NOTHING
                    took = monotonic() - began
                    if took > BLOCKING_SECONDS:
                        self._blocking.note(call, took)
        finally:
            self.suspended -= 1
            call.timer.cancel()
            if call.waits:  # by tasks that it leaves behind
                for wait in list(call.waits):
                    wait.future.cancel()
                call.waits = None
            if self._parked is not None:
                self._settle()

    def _settle(self, *, commit: bool = True) -> None:
        """No turn runs for now: close batches and send what may leave, without waiting for another iteration."""
        self.now_running = self.result = None
        if commit:
            self._prompt = False
            if self._touched:
                self.box[0] = COMMITTING
                touched, self._touched = self._touched, {}
                for committer in touched:
                    committer.kick()
        self.box[0] = NOTHING
        self._gate.flush()

    # -- a turn's begin

    def _begin(self, call: Call) -> bool:
        """Whether the turn may run now; otherwise it was answered, or comes later."""
        act = call.act
        self.waiting -= 1
        if call.once is not None and self._answered_before(call):
            return False
        if act.instance is None and type(call.method) is not Lifecycle:
            if not self._build(call):
                return False
            if act.busy and act.mailbox and act.mailbox[0] is call:  # initialisation goes first
                return False
        if call.cancelled:  # without a mark: when the caller has died, the byte may be its successor's
            self._refuse(call, ActorUnavailable("The call was given up while it waited.", retry_after=1))
            return False
        call.begun[call.id] = 1
        call.started = now = monotonic()
        remaining = call.deadline / 1000 - now
        if remaining <= 0:
            call.begun[call.id] = 0
            self._refuse(call, ActorUnavailable("The call's deadline passed while it waited.", retry_after=1))
            return False
        limit = call.method.timeout or self._call_timeout
        if call.method is self._initialise:
            limit = act.host.type.init_timeout or limit
        call.limit = limit if limit < remaining else remaining
        act.turn = call
        return True

    def _answered_before(self, call: Call) -> bool:
        """Whether the call took effect in an earlier run, or that can't be said; then it is answered."""
        assert call.once is not None
        try:
            if not call.once.answered(call):
                return False
        except StoreBroken as error:
            call.act.shard.committer.break_off(error)
            call.fail(error)
        except ActordError as error:
            call.fail(as_error(error, call.method.name))
        self._answer(call)
        self._next(call.act)
        return True

    def refuse_queued(self, call: Call, error: ActordError) -> None:
        """Answer a call out of its turn, if it is still queued behind another one."""
        mailbox = call.act.mailbox
        if mailbox is None or call not in mailbox:
            return
        log.warning("a call of %s.%s was refused: %s", call.act.host.type.name, call.method.name, error.detail)
        mailbox.remove(call)
        self.waiting -= 1
        call.fail(error)
        self._gate.release((call,))
        self._gate.flush()

    def _build(self, call: Call) -> bool:
        """Construct the instance; queue its initialisation before the call if it has one. False when that failed."""
        act = call.act
        mark(self.box, 0, b"__init__", act.label)  # a constructor may hold the worker as well
        try:
            initialisers = build(act, self._env)
        except BaseException as error:
            self._discard(act, as_error(error, f"{act.host.type.name}.__init__"), call)
            return False
        if initialisers:
            if act.mailbox is None:
                act.mailbox = deque()
            act.mailbox.appendleft(call)
            self.waiting += 2
            first = self._lifecycle(act, self._initialise)
            first.args = tuple(initialisers)
            self._ready.appendleft(first)
        return True

    # -- a turn's end

    def _succeed(self, call: Call, value: Any) -> None:
        call.ended = now = monotonic()
        if call.aborted:
            self._fail(call, InstanceAborted(call.aborted))
            return
        took = now - call.started
        if took > BLOCKING_SECONDS and call.task is None:
            self._blocking.note(call, took)
        if took > call.limit:  # it blocked the loop, so that the timer never ran
            self._run_out_of_time(call)
            return
        act = call.act
        try:
            if (call.method is act.host.type.fetch) != isinstance(value, Response):
                raise CodecError("fetch must return a Response, and nothing else may.")
            if call.sink is not _NOBODY:
                call.succeed(value)
            call.over = True
            committer = act.shard.committer
            if call.more:
                act.join(call, committer.batch)
            elif call.writes is not None:
                act.kv.join(call, committer.batch)
        except BaseException as error:
            call.over = False
            self._fail(call, result_error(f"{act.host.type.name}.{call.method.name}", error))
            return
        self._answer(call)
        if call.method is self._deactivate:
            act.instance = None
        self._next(act)

    def _fail(self, call: Call, error: BaseException) -> None:
        call.ended = now = monotonic()
        act = call.act
        if now - call.started > BLOCKING_SECONDS and call.task is None:
            self._blocking.note(call, now - call.started)
        if call.ended - call.started > call.limit and not call.aborted:  # whatever it made of that
            self._run_out_of_time(call)
            return
        call.over = True
        if call.aborted:
            error = InstanceAborted(call.aborted)
        wrote = call.writes is not None or bool(call.aborted)
        if call.more:
            wrote = act.undo(call) or wrote
        if wrote:
            act.instance = None
        if issubclass(type(error), StoreBroken):
            act.shard.committer.break_off(error)
        label = f"{act.host.type.name}.{call.method.name}"
        failure = as_error(error, label)
        with as_turn(call):  # the line of the log is the turn's
            log_failure(log, f"{label} of {act.name!r} failed", failure, error)
        if call.method is self._initialise:
            self._discard(act, failure, None)
            return
        if call.method is self._deactivate:
            act.instance = None
        if call.reached:  # its own writes are gone; whether those of actors that it called are, only they know
            failure.applied = "unknown"
        call.fail(failure)
        self._answer(call)
        self._next(act)

    def _run_out_of_time(self, call: Call) -> None:
        """Fence the turn off, answer, cancel what is left of it, and go on with the next."""
        if call.over:
            return
        call.over = True
        call.ended = monotonic()
        act = call.act
        label = f"{act.host.type.name}.{call.method.name}"
        log.warning("%s of %r ran over its limit of %g s and was cancelled", label, act.name, call.limit)
        act.instance = None
        if call.more:
            act.undo(call)
        if call.task is not None:
            call.task.cancel()
        detail = f"{label} ran for more than {call.limit:g} s; its writes were discarded."
        if call.method is self._initialise:
            self._discard(act, BlockConcurrencyTimeoutError(detail, retry_after=1), None)
        else:
            call.fail(timeout_error(call, detail))
            self._answer(call)
            self._next(act)
        if self._parked is not None:
            self._settle()

    def interrupt(self, act: Activation, error: ActordError) -> None:
        """The state that a running turn saw was rolled back: fail the turn and drop the instance."""
        act.instance = None
        call = act.turn
        if call is None or call.over:
            return
        call.over = True
        call.ended = monotonic()
        if call.more:
            act.undo(call)
        if call.task is not None:
            call.task.cancel()
        call.fail(error)
        self._answer(call)
        self._next(act)

    def _answer(self, call: Call) -> None:
        """Hand the reply to the output gate: at once if everything it could have seen is durable."""
        committer = call.act.shard.committer
        seq = call.act.seq
        if call.sink is _NOBODY and seq != committer.batch.seq and call.effects is None:
            return  # otherwise its writes need somebody who waits for their batch
        if seq > committer.durable_seq:
            committer.hold(call, seq)
            self._touched[committer] = None
        else:
            self._gate.release((call,))

    def _refuse(self, call: Call, error: ActordError) -> None:
        """Answer a call whose turn never began."""
        call.fail(error)
        self._answer(call)
        self._next(call.act)

    def _next(self, act: Activation) -> None:
        act.turn = None
        act.last_used = self.tick
        mailbox = act.mailbox
        if mailbox:
            self._make_ready(mailbox.popleft())
        else:
            act.busy = False
            act.mailbox = None
            self._prompt = True

    def _discard(self, act: Activation, error: ActordError, call: Call | None) -> None:
        """The activation failed: so do all the calls that wait for it. The next one tries again."""
        act.instance = None
        act.turn = None
        waiting = list(act.mailbox or ())
        self.waiting -= len(waiting)
        if call is not None:
            waiting.insert(0, call)
        act.mailbox = None
        act.busy = False
        for each in waiting:
            each.fail(error)
            self._answer(each)
