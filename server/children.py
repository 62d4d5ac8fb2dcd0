"""The supervisor's children: one ``Child`` for each place (front 0, worker 1 ...), one ``Process`` for each life in it.

Promises:

1. A child that dies is started again at once; while it keeps dying young, after a delay that doubles up to a limit.
2. A ready child that answers no ping for ``stuck_after`` is asked to log what it does (SIGUSR1), then killed; what
   held a worker is read from its black box, also when it could say nothing. One that is in a commit is let be, unless
   a signal has stopped it there: its disk holds it, and a process that waits for that can't even be killed.
   Only unanswered pings count, not the clock: a supervisor that was stopped itself kills nobody.
3. ``swap`` puts a process that waits in the place of the one that serves, which waits in its turn. When the successor
   does not get ready, its predecessor serves again, with what it had loaded.
4. Every change of state is a row of ``TRANSITIONS``; another one is a bug and ends the supervisor.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Sequence
from enum import Enum, auto
from time import monotonic
from typing import Protocol

from actord.errors import ActorUnavailable, InvariantViolated
from actord.server.process import Failure, Process, ending
from actord.shards.blackbox import BlackBox
from actord.shards.control import Message

log = logging.getLogger("actord.supervisor")

FIRST_DELAY_SECONDS = 0.1
YOUNG_SECONDS = 10.0  # a process that lived for less died young
LAST_WORDS_SECONDS = 1.0  # between SIGUSR1 and SIGKILL
SLOW_START_SECONDS = 10.0  # then a person is told that something takes long
LEAVE_GRACE_SECONDS = 5.0  # how long a worker has beyond its limit to leave, before it is killed


class State(Enum):
    DOWN = auto()  # no process, none due
    STARTING = auto()
    READY = auto()
    STUCK = auto()  # asked for its last words, about to be killed
    RECYCLING = auto()  # told to leave; another life follows
    SWAPPING = auto()  # its process leaves, or the next one takes over
    DRAINING = auto()  # told to leave for good
    WAITING = auto()  # no process; the next life starts after a delay
    ENDED = auto()


class Event(Enum):
    START = auto()
    BECAME_READY = auto()
    SILENT = auto()
    RECYCLE = auto()
    SWAP = auto()
    SWAP_FAILED = auto()  # and nobody is left
    DRAIN = auto()
    DIED = auto()
    GIVE_UP = auto()


TRANSITIONS: dict[tuple[State, Event], State] = {
    (State.DOWN, Event.START): State.STARTING,
    (State.DOWN, Event.DRAIN): State.ENDED,
    (State.STARTING, Event.BECAME_READY): State.READY,
    (State.STARTING, Event.DIED): State.WAITING,
    (State.STARTING, Event.RECYCLE): State.RECYCLING,
    (State.STARTING, Event.DRAIN): State.DRAINING,
    (State.READY, Event.SILENT): State.STUCK,
    (State.READY, Event.RECYCLE): State.RECYCLING,
    (State.READY, Event.DRAIN): State.DRAINING,
    (State.READY, Event.DIED): State.WAITING,
    (State.READY, Event.SWAP): State.SWAPPING,
    (State.SWAPPING, Event.BECAME_READY): State.READY,
    (State.SWAPPING, Event.DIED): State.SWAPPING,
    (State.SWAPPING, Event.SWAP_FAILED): State.DOWN,
    (State.SWAPPING, Event.DRAIN): State.DRAINING,
    (State.STUCK, Event.DIED): State.WAITING,
    (State.STUCK, Event.DRAIN): State.DRAINING,
    (State.RECYCLING, Event.DIED): State.DOWN,
    (State.RECYCLING, Event.DRAIN): State.DRAINING,
    (State.DRAINING, Event.DIED): State.ENDED,
    (State.WAITING, Event.START): State.STARTING,
    (State.WAITING, Event.DRAIN): State.ENDED,
    (State.WAITING, Event.GIVE_UP): State.ENDED,
    # what arrives when it no longer matters
    (State.RECYCLING, Event.BECAME_READY): State.RECYCLING,
    (State.DRAINING, Event.BECAME_READY): State.DRAINING,
    (State.DRAINING, Event.DRAIN): State.DRAINING,
    (State.ENDED, Event.DRAIN): State.ENDED,
}


class Next(Enum):
    """What follows on a life that ended unasked."""

    AGAIN = auto()  # another one, by promise 1
    HOLD = auto()  # another one when ``start`` or ``recycle`` is called
    NOTHING = auto()


class Owner(Protocol):
    """What a child tells the supervisor."""

    def child_ready(self, child: Child, message: Message) -> None: ...

    def child_failed(self, child: Child, failure: Failure) -> Next:
        """A life ended unasked. What comes next."""
        ...

    def child_ended(self, child: Child) -> None:
        """It has left for good."""
        ...

    def child_asks(self, child: Child, message: Message) -> None:
        """It wants ``message["wish"]`` to be done; the answer goes back by ``tell``."""
        ...

    def child_crowded(self, child: Child) -> None:
        """It is to leave, and calls keep coming that it can't refuse."""
        ...


class SwapFailed(Exception):
    """The successor did not get ready. ``restored``: its predecessor serves again."""

    def __init__(self, message: str, *, restored: bool) -> None:
        super().__init__(message)
        self.restored = restored


class Backoff:
    """Promise 1: how long to wait before the next life."""

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self._next = 0.0

    def after(self, lived: float) -> float:
        """Seconds to wait after a life of ``lived`` seconds."""
        delay = 0.0 if lived >= YOUNG_SECONDS else self._next
        self._next = min(max(delay * 2, FIRST_DELAY_SECONDS), self.limit)
        return delay


class Child:
    """A place that a process fills. ``argv`` gets the number of the control line's descriptor appended."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        boot: Message,
        fds: Sequence[int],
        owner: Owner,
        *,
        stuck_after: float,
        delay_max: float,
        black_box: BlackBox | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        # for life
        self.name = name
        self._argv = list(argv)
        self.boot = boot
        self._fds = list(fds)
        self._owner = owner
        self._stuck_after = stuck_after
        self._black_box = black_box
        self._environment = environment
        self._backoff = Backoff(delay_max)
        self.state = State.DOWN
        self.deaths = 0  # lives that ended unasked
        self.held = False  # waiting for ``start``, not for a timer
        self._timer: asyncio.TimerHandle | None = None
        self._down: list[asyncio.Future[None]] = []
        self._asking: dict[int, asyncio.Future[Message]] = {}
        self._questions = 0
        self._spare: Process | None = None  # the next life, which waits
        self._step_of_swap: asyncio.Future[bool] | None = None
        # for one process
        self._process: Process | None = None
        self._silence = 0.0
        self._asked = 0
        self._heard = 0
        self.load: Message = {}  # what it said of itself with its last answer to a ping

    @property
    def serves(self) -> bool:
        return self.state is State.READY

    @property
    def answers(self) -> bool:
        """False for a process that serves and owes the answer to a ping; one that is replaced owes none."""
        if self.state is State.READY:
            return self._silence == 0 or self._waits_for_disk
        return self.state is not State.STUCK

    @property
    def _waits_for_disk(self) -> bool:
        return self._black_box is not None and self._black_box.commits and not self._stopped

    @property
    def _stopped(self) -> bool:
        import psutil  # for a child that is silent

        try:
            return self.pid is not None and psutil.Process(self.pid).status() == psutil.STATUS_STOPPED
        except psutil.NoSuchProcess:
            return False

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start a process now, unless one runs."""
        if self.state not in (State.DOWN, State.WAITING):
            return
        self._cancel_timer()
        self._step(Event.START)
        self.held = False
        spare, self._spare = self._spare, None
        if spare is not None and not spare.ended:
            self._adopt(spare)
            return
        self._silence = 0.0
        self._asked = self._heard = 0
        if self._black_box is not None:
            self._black_box.reset()
        try:
            self._process = Process(
                self._argv, self.boot, self._fds, self._on_message, self._on_exit, self._environment
            )
        except OSError as error:  # the system is out of processes or memory
            self._step(Event.DIED)
            self._backoff.after(0.0)  # never at once
            self._failed(Failure(f"{self.name} can't be started: {error}", None), 0.0)

    def drain(self, limit: float) -> None:
        """Leave for good: finish what is running within ``limit`` seconds."""
        self._cancel_timer()
        self._step(Event.DRAIN)
        if self.state is State.ENDED:
            self._owner.child_ended(self)
        elif self._process is not None:
            self._process.send({"drain": limit})

    def inform(self, facts: Message) -> None:
        """Tell the process, and each later one when it boots."""
        self.boot = {**self.boot, **facts}
        if self._process is not None:
            self._process.send(facts)

    async def recycle(self, limit: float) -> None:
        """End the process as ``drain`` does, killed after ``limit``, and start the next; returns when it began."""
        if self.state in (State.STARTING, State.READY):
            self._step(Event.RECYCLE)
            assert self._process is not None
            self._process.send({"drain": limit})
            self._timer = asyncio.get_running_loop().call_later(limit, self.kill)
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._down.append(done)
            await done
        self.start()

    def standby(self, boot: Message) -> Process:
        """A process that loads its program and waits for ``swap``. It is nobody's: whoever asked for it ends it."""
        return Process(self._argv, boot | {"standby": True}, self._fds, _ignore, _ignore, self._environment)

    async def swap(self, successor: Process, boot: Message, *, limit: float, start_limit: float) -> Process | None:
        """Let ``successor``, which waits, take over, with ``boot`` for its later lives.

        The process that serves has ``limit`` seconds to leave; it waits then, and is returned: whoever asked ends it.
        None when it has ended. The successor has ``start_limit`` seconds to get ready. Raises ``SwapFailed``.
        """
        before, boot_before = self._process, self.boot
        assert before is not None
        self._step(Event.SWAP)
        self._nobody_answers()
        before.send({"leave": limit})
        parked = await self._swap_step(limit + LEAVE_GRACE_SECONDS)
        if parked:
            before.on_message = before.on_exit = _ignore
        if await self._take_over(successor, boot, start_limit):
            return before if parked else None
        why = successor.failure(f"the new {self.name}").message
        if parked and await self._take_over(before, boot_before, start_limit):
            raise SwapFailed(why, restored=True)
        self.boot = boot_before
        if self.state is State.SWAPPING:
            self._step(Event.SWAP_FAILED)
            self.start()
        raise SwapFailed(why, restored=False)

    async def _take_over(self, process: Process, boot: Message, limit: float) -> bool:
        if process.ended or self.state is not State.SWAPPING:
            return False
        self.boot = boot
        self._adopt(process)
        return await self._swap_step(limit)

    def _adopt(self, process: Process) -> None:
        self._process = process
        process.on_message, process.on_exit = self._on_message, self._on_exit
        self._silence = 0.0
        self._asked = self._heard = 0
        if self._black_box is not None:
            self._black_box.reset()
        process.send({"serve": True})

    def restore(self, process: Process, boot: Message) -> None:
        """Let a process that waits be the next life, which begins now: the one that runs is killed."""
        self.boot = boot
        self._spare = process
        if self._process is None:
            self.start()
        else:
            self.kill()

    def say(self, message: Message) -> None:
        """Tell the process, if there is one that listens."""
        if self.state is State.READY and self._process is not None:
            self._process.send(message)

    def limits(self, *, stuck_after: float, delay_max: float) -> None:
        """Other ones from now on; as for ``Child``."""
        self._stuck_after = stuck_after
        self._backoff.limit = delay_max

    async def _swap_step(self, limit: float) -> bool:
        """Wait until the process has left, or is ready. False: it has ended, or was killed at the limit."""
        loop = asyncio.get_running_loop()
        self._step_of_swap = loop.create_future()
        timer = loop.call_later(limit, self.kill)
        try:
            return await self._step_of_swap
        finally:
            timer.cancel()
            self._step_of_swap = None

    def _swap_goes_on(self, well: bool) -> None:
        if self._step_of_swap is not None and not self._step_of_swap.done():
            self._step_of_swap.set_result(well)

    def _nobody_answers(self) -> None:
        for waiting in self._asking.values():
            if not waiting.done():
                waiting.set_result(self._away())

    async def ask(self, request: Message) -> Message:
        """The answer to an operator's request: ``{"value": ...}`` or ``{"error": problem}``."""
        if self.state is not State.READY or self._process is None:
            return self._away()
        self._questions += 1
        number = self._questions
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._asking[number] = answer
        self._process.send({"admin": request, "id": number})
        try:
            return await answer
        finally:
            self._asking.pop(number, None)

    def tell(self, answer: Message) -> None:
        """Answer what the child has asked for, if it still lives."""
        if self._process is not None:
            self._process.send(answer)

    def _away(self) -> Message:
        return {"error": ActorUnavailable(f"{self.name} is away: it is being replaced.", retry_after=1).to_problem()}

    def kill(self) -> None:
        """SIGKILL, now."""
        if self._process is not None:
            self._process.kill()

    def tick(self, interval: float) -> None:
        """Called every ``interval`` seconds: sends a ping, and counts how long none was answered."""
        if self.state is State.STARTING:
            before, self._silence = self._silence, self._silence + interval
            if before < SLOW_START_SECONDS <= self._silence:
                log.warning("%s is still starting: a large recovery, or a program that is slow to load", self.name)
        if self.state is not State.READY or self._process is None:
            return
        self._silence = self._silence + interval if self._heard < self._asked else 0.0
        if self._silence >= self._stuck_after and self._waits_for_disk:
            if self._silence - interval < self._stuck_after:
                log.error("%s has waited for its disk for %.0f s: a commit is not done", self.name, self._silence)
            return
        if self._silence >= self._stuck_after:
            self._step(Event.SILENT)
            log.error(
                "%s has not answered for %.0f s: it is killed and replaced; its last words follow",
                self.name,
                self._silence,
                extra={"pid": self._process.pid},
            )
            self._process.signal(signal.SIGUSR1)
            self._timer = asyncio.get_running_loop().call_later(LAST_WORDS_SECONDS, self._end_stuck)
            return
        self._asked += 1
        self._process.send({"ping": self._asked})

    def _end_stuck(self) -> None:
        if self._black_box is not None:
            held, stack = self._black_box.read()
            if held is None:
                log.critical("no turn holds %s; its stacks:\n%s", self.name, stack)
            else:
                log.critical("%s.%s of %r holds %s; its stacks, innermost call first:\n%s", *held, self.name, stack)
        self.kill()

    # -- from the process

    def _on_message(self, message: Message) -> None:
        if "pong" in message:
            self._heard = max(self._heard, int(message["pong"]))
            self.load = message
        elif "answer" in message:
            waiting = self._asking.get(message["id"])
            if waiting is not None and not waiting.done():
                waiting.set_result(message["answer"])
        elif "wish" in message:
            self._owner.child_asks(self, message)
        elif message.get("ready"):
            self._silence = 0.0
            self._step(Event.BECAME_READY)
            if self.state is State.READY:
                self._swap_goes_on(True)
                self._owner.child_ready(self, message)
        elif message.get("left"):
            self._swap_goes_on(True)
        elif message.get("crowded"):
            self._owner.child_crowded(self)

    def _on_exit(self, status: int) -> None:
        process, self._process = self._process, None
        assert process is not None
        self.load = {}
        was = self.state
        self._nobody_answers()
        self._cancel_timer()
        self._step(Event.DIED)
        if self.state is State.WAITING:
            self._failed(process.failure(self.name), monotonic() - process.started)
        elif self.state is State.SWAPPING:
            self._swap_goes_on(False)
        elif self.state is State.ENDED:
            if status != 0:
                log.warning("%s %s while it drained", self.name, ending(status))
            self._owner.child_ended(self)
        elif status != 0:
            log.warning("%s %s while it was %s", self.name, ending(status), was.name.lower())
        for future in self._down:
            if not future.done():
                future.set_result(None)
        self._down.clear()

    def _failed(self, failure: Failure, lived: float) -> None:
        self.deaths += 1
        following = self._owner.child_failed(self, failure)
        if self.state is not State.WAITING:
            return  # told to drain meanwhile
        if following is Next.AGAIN:
            self._again(lived)
        elif following is Next.HOLD:
            self.held = True
        else:
            self._step(Event.GIVE_UP)
            self._owner.child_ended(self)

    def _again(self, lived: float) -> None:
        """Start the next life: at once after a long one, later and later after short ones."""
        delay = self._backoff.after(lived)
        if delay == 0:
            self.start()
        else:
            self._timer = asyncio.get_running_loop().call_later(delay, self.start)

    def _step(self, event: Event) -> None:
        try:
            self.state = TRANSITIONS[self.state, event]
        except KeyError:
            raise InvariantViolated(f"{self.name}: {event.name} can't happen when {self.state.name}") from None

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _ignore(_: object) -> None:
    pass
