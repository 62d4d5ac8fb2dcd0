"""Pins: a reader from another process, which copies the database, keeps the store from checkpoints meanwhile.

1. While a pin holds, the database file does not change, nor do the frames that the log had when it was taken: the log
   only grows. So the two files say what commit ``commit_seq`` was, however long it takes to read them.
2. A pin never puts the store at risk: it ends when the log reaches its limit, when the disk is full, and when whoever
   asked for it is not heard of in time. ``keep`` and ``unpin`` say so, and the copy is worth nothing then.
3. A pin ends with the process, too: a successor knows none.

It costs nothing but a look at an empty dict when a checkpoint is due.
"""

from __future__ import annotations

import logging
from time import monotonic
from typing import NamedTuple

from actord.errors import InvariantViolated


class Pin(NamedTuple):
    until: float  # by the monotonic clock
    log_limit: int  # bytes


class SqlitePins:
    """The part of ``SqliteStore`` that holds pins."""

    path: str
    full: bool
    commit_seq: int
    _log: logging.Logger
    _pins: dict[str, Pin]
    _deferred: bool  # a checkpoint was due and not made
    _wal_frames: int
    _checkpoint_wanted: bool

    @property
    def wal_bytes(self) -> int:
        raise NotImplementedError

    def pin(self, id_: str, *, seconds: float, log_limit: int) -> tuple[int, int]:
        """Pin what is there now, for ``seconds`` or until it is kept: the commit number, and the log's frames.

        Nothing may be in flight. ``log_limit``: bytes of log at which the pin ends by itself.
        """
        if id_ in self._pins:
            raise InvariantViolated(f"{self.path} has the pin {id_} already")
        self._pins[id_] = Pin(monotonic() + seconds, log_limit)
        return self.commit_seq, self._wal_frames

    def keep(self, id_: str, *, seconds: float) -> bool:
        """Hold a pin for so many seconds from now. False when it has ended."""
        pin = self._pins.get(id_)
        if pin is None:
            return False
        self._pins[id_] = pin._replace(until=monotonic() + seconds)
        return True

    def unpin(self, id_: str) -> bool:
        """End a pin. False when it had ended before."""
        return self._pins.pop(id_, None) is not None

    def want_checkpoint(self, above: int) -> None:
        """Let the next ``maintain`` checkpoint a log of more than ``above`` bytes."""
        if self.wal_bytes > above:
            self._checkpoint_wanted = True

    def _pinned(self) -> bool:
        """A checkpoint is due: does a pin forbid it?"""
        now = monotonic()
        for id_, pin in list(self._pins.items()):
            why = (
                "the disk is full"
                if self.full
                else f"the log has {self.wal_bytes} bytes"
                if self.wal_bytes >= pin.log_limit
                else "nobody asks for it any more"
                if now >= pin.until
                else ""
            )
            if why:
                self._log.warning("a backup of %s is given up: %s", self.path, why)
                del self._pins[id_]
        self._deferred = True
        return bool(self._pins)
