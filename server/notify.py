"""What the service manager is told, by the datagrams of ``sd_notify(3)``; without one (no ``NOTIFY_SOCKET``) nothing.

1. ``READY=1`` is sent when every child is ready, ``RELOADING=1`` and ``STOPPING=1`` before the work that they name.
2. ``WATCHDOG=1`` is sent in half of the time that the manager asks for, and only while every child that runs answers
   its pings. A child that is being replaced has nothing to answer: a new start of the whole server would take the
   other shards away as well, and could do no more than the supervisor does already.
3. ``STATUS=`` says in a line what the server does: every few seconds, when it has changed.
4. Nothing here ends or holds up the server: a manager that can't be reached is a line in the log, once.
5. The variables are taken out of the environment: no child and no actor's code speaks for the server.

Our own code, since the protocol is one datagram of text: the package sdnotify is not maintained and knows neither the
watchdog nor reloads, systemd-python has to be compiled against the headers of libsystemd.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import MutableMapping
from time import monotonic, monotonic_ns

log = logging.getLogger("actord.supervisor")

STOP_SPARE_SECONDS = 5.0  # to end what is left after a limit
SEND_SECONDS = 1.0  # how long the manager may take to accept one of the great changes


class Notifier:
    """The line to the service manager. ``watchdog``: after so many seconds without ``feed`` it ends the server."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        address = environ.pop("NOTIFY_SOCKET", "")
        usec, pid = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        self._sock: socket.socket | None = None
        self._status = ""
        self._fed = float("-inf")
        if address.startswith(("/", "@")):
            self._address = "\0" + address[1:] if address[0] == "@" else address
            self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        elif address:
            log.warning("the service manager's address %s is of a kind that is not known: it is told nothing", address)
        mine = self._sock is not None and pid in ("", str(os.getpid()))
        self.watchdog = int(usec) / 1e6 if mine and usec.isdigit() and int(usec) else None

    def __bool__(self) -> bool:
        """Is there a service manager that listens?"""
        return self._sock is not None

    def ready(self, status: str = "") -> None:
        """The server has started, or a reload has ended, with whichever outcome ``status`` names."""
        self._fed = monotonic()
        self._send("READY=1", *self._new(status), seconds=SEND_SECONDS)

    def reloading(self, status: str = "Reloading") -> None:
        """A reload begins; ``ready`` has to follow."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={monotonic_ns() // 1_000}", *self._new(status), seconds=SEND_SECONDS)

    def stopping(self, limit: float) -> None:
        """The server ends, within ``limit`` seconds: the manager is to wait for that long, whatever its unit says."""
        status = f"Finishing what runs, for at most {limit:g} s"
        extend = f"EXTEND_TIMEOUT_USEC={int((limit + STOP_SPARE_SECONDS) * 1e6)}"
        self._send("STOPPING=1", extend, *self._new(status), seconds=SEND_SECONDS)

    def status(self, text: str) -> None:
        """A line for ``systemctl status``; sent when it is another one than before."""
        if text != self._status:
            self._send(*self._new(text))

    def feed(self) -> None:
        """Everybody answers: tell the watchdog, if a quarter of its time has passed.

        Whoever calls this every quarter feeds it in half of its time at the latest.
        """
        if self.watchdog is None:
            return
        now = monotonic()
        if now - self._fed >= self.watchdog / 4:
            self._fed = now
            self._send("WATCHDOG=1")

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _new(self, status: str) -> tuple[str, ...]:
        if not status:
            return ()
        self._status = status
        return (f"STATUS={' '.join(status.split())}",)

    def _send(self, *lines: str, seconds: float = 0.0) -> None:
        """One datagram. ``seconds``: wait for so long while the manager's queue is full; without it is dropped."""
        if self._sock is None:
            return
        self._sock.settimeout(seconds)
        try:
            self._sock.sendto("\n".join(lines).encode(), self._address)
        except BlockingIOError:
            pass
        except OSError as error:
            log.warning("the service manager can't be told: %s", error)
            self.close()
