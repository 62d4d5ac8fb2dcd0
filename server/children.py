"""The supervisor's children: one ``Child`` for each place (front 0, worker 1 ...), one ``Process`` for each life in it.

Promises:

1. A child that dies is started again at once; while it keeps dying young, after a delay that doubles up to a limit.
2. A ready child that answers no ping for ``stuck_after`` is asked to log what it does (SIGUSR1), then killed; what
   held a worker is read from its black box, also when it could say nothing.
   Only unanswered pings count, not the clock: a supervisor that was stopped itself kills nobody.
3. When a process ends, what it forked into its process group is killed before it is reaped: a fork of a worker may
   hold the worker's locks.
4. A child's last words (``fatal``) are read before its end is dealt with.
5. Every change of state is a row of ``TRANSITIONS``; another one is a bug and ends the supervisor.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from enum import Enum, auto
from time import monotonic
from typing import Protocol

from actord.errors import ActorUnavailable, InvariantViolated
from actord.shards.blackbox import BlackBox
from actord.shards.control import ControlChannel, Message

log = logging.getLogger("actord.supervisor")

FIRST_DELAY_SECONDS = 0.1
YOUNG_SECONDS = 10.0  # a process that lived for less died young
LAST_WORDS_SECONDS = 1.0  # between SIGUSR1 and SIGKILL
SLOW_START_SECONDS = 10.0  # then a person is told that something takes long
LINE_CLOSE_SECONDS = 0.5  # how long the line of a dead child is read for its last words


class State(Enum):
    DOWN = auto()  # no process, none due
    STARTING = auto()
    READY = auto()
    STUCK = auto()  # asked for its last words, about to be killed
    RECYCLING = auto()  # told to leave; another life follows
    DRAINING = auto()  # told to leave for good
    WAITING = auto()  # no process; the next life starts after a delay
    ENDED = auto()


class Event(Enum):
    START = auto()
    BECAME_READY = auto()
    SILENT = auto()
    RECYCLE = auto()
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


class Failure:
    """Why a life ended: ``message`` for people, and the exit code that the child wished for, if it said one."""

    __slots__ = ("exit", "message")

    def __init__(self, message: str, exit: int | None) -> None:
        self.message = message
        self.exit = exit


class Backoff:
    """Promise 1: how long to wait before the next life."""

    def __init__(self, limit: float) -> None:
        self._limit = limit
        self._next = 0.0

    def after(self, lived: float) -> float:
        """Seconds to wait after a life of ``lived`` seconds."""
        delay = 0.0 if lived >= YOUNG_SECONDS else self._next
        self._next = min(max(delay * 2, FIRST_DELAY_SECONDS), self._limit)
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
        self._boot = boot
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
        # for one process
        self._process: Process | None = None
        self._silence = 0.0
        self._asked = 0
        self._heard = 0

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
        self._silence = 0.0
        self._asked = self._heard = 0
        if self._black_box is not None:
            self._black_box.reset()
        try:
            self._process = Process(
                self._argv, self._boot, self._fds, self._on_message, self._on_exit, self._environment
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
        self._boot = {**self._boot, **facts}
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
                self._owner.child_ready(self, message)
        elif "fatal" in message and self._process is not None:
            words = message["fatal"]
            self._process.fatal = Failure(str(words.get("message", "")), int(words.get("exit", 1)))

    def _on_exit(self, status: int) -> None:
        process, self._process = self._process, None
        assert process is not None
        was = self.state
        for waiting in self._asking.values():
            if not waiting.done():
                waiting.set_result(self._away())
        self._cancel_timer()
        self._step(Event.DIED)
        if self.state is State.WAITING:
            failure = process.fatal or Failure(f"{self.name} {_ending(status)}", None)
            self._failed(failure, monotonic() - process.started)
        elif self.state is State.ENDED:
            if status != 0:
                log.warning("%s %s while it drained", self.name, _ending(status))
            self._owner.child_ended(self)
        elif status != 0:
            log.warning("%s %s while it was %s", self.name, _ending(status), was.name.lower())
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


class Process:
    """One life: a process in a process group of its own, its control line, and the news of its end."""

    def __init__(
        self,
        argv: list[str],
        boot: Message,
        fds: list[int],
        on_message: Callable[[Message], None],
        on_exit: Callable[[int], None],
        environment: dict[str, str] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_exit = on_exit
        self.fatal: Failure | None = None
        self.started = monotonic()
        self._status: int | None = None
        self._line_closed = False
        self._finished = False
        ours, theirs = socket.socketpair()
        with theirs:
            # A group of its own: Ctrl-C reaches the supervisor alone, which drains. Standard output is for data.
            self._popen = subprocess.Popen(
                [*argv, str(theirs.fileno())],
                pass_fds=[*fds, theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,
                process_group=0,
                env=environment,
            )
        self.pid = self._popen.pid
        self._pidfd = os.pidfd_open(self.pid)
        self._loop.add_reader(self._pidfd, self._reap)
        ours.setblocking(False)
        self._channel = ControlChannel(on_message, self._on_line_closed)
        self._attaching = self._loop.create_task(self._attach(ours, boot))

    async def _attach(self, sock: socket.socket, boot: Message) -> None:
        await self._channel.attach(sock)
        self._channel.send(boot)

    def send(self, message: Message) -> None:
        if self._attaching.done():
            self._channel.send(message)
        else:
            self._attaching.add_done_callback(lambda _: self._channel.send(message))

    def signal(self, number: signal.Signals) -> None:
        if self._status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        # Before wait(): until then the kernel keeps the number of the group for us.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._status = self._popen.wait()
        if self._line_closed:
            self._finish()
        else:
            self._loop.call_later(LINE_CLOSE_SECONDS, self._finish)

    def _on_line_closed(self) -> None:
        self._line_closed = True
        if self._status is not None:
            self._finish()

    def _finish(self) -> None:
        if not self._finished:
            self._finished = True
            self._channel.close()
            assert self._status is not None
            self._on_exit(self._status)


def _ending(status: int) -> str:
    if status >= 0:
        return f"ended with exit code {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
