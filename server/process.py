"""One process of the server: started with the interpreter, in a group of its own, on a control line.

1. When it ends, what it forked into its process group is killed before it is reaped: a fork of a worker may hold the
   worker's locks.
2. Its last words (``fatal``) are read before its end is dealt with.
3. Whoever listens to it may change: a process that waits is nobody's child until it has work.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from time import monotonic

from actord.shards.control import ControlChannel, Message

LINE_CLOSE_SECONDS = 0.5  # how long the line of a dead child is read for its last words


class Failure:
    """Why a life ended: ``message`` for people, and the exit code that the child wished for, if it said one."""

    __slots__ = ("exit", "message")

    def __init__(self, message: str, exit: int | None) -> None:
        self.message = message
        self.exit = exit


class Process:
    """``on_message`` gets what it says, ``on_exit`` the status that it ended with, once."""

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
        self.on_message = on_message
        self.on_exit = on_exit
        self.fatal: Failure | None = None  # its last words
        self.started = monotonic()
        self._status: int | None = None
        self._line_closed = False
        self.gone = asyncio.Event()
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
        self._channel = ControlChannel(self._hear, self._on_line_closed)
        self._attaching = self._loop.create_task(self._attach(ours, boot))

    async def _attach(self, sock: socket.socket, boot: Message) -> None:
        await self._channel.attach(sock)
        self._channel.send(boot)

    def _hear(self, message: Message) -> None:
        if "fatal" in message:
            words = message["fatal"]
            self.fatal = Failure(str(words.get("message", "")), int(words.get("exit", 1)))
        self.on_message(message)

    def send(self, message: Message) -> None:
        if self._attaching.done():
            self._channel.send(message)
        else:
            self._attaching.add_done_callback(lambda _: self._channel.send(message))

    @property
    def ended(self) -> bool:
        return self.gone.is_set()

    def failure(self, name: str) -> Failure:
        """Why it ended; ``name`` is what it was."""
        if self.fatal is not None or self._status is None:
            return self.fatal or Failure(f"{name} does not get ready", None)
        return Failure(f"{name} {ending(self._status)}", None)

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
        if not self.gone.is_set():
            self.gone.set()
            self._channel.close()
            assert self._status is not None
            self.on_exit(self._status)


def ending(status: int) -> str:
    if status >= 0:
        return f"ended with exit code {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
