"""Direct calls of the synchronous client: a pool of connections to each worker, one call at a time on each.

All threads share it. The promises are in ``client_direct``. A thread that finds a worker away goes through the front;
only one at a time looks whether the worker is back.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from threading import Lock
from time import monotonic

from actord.client_calls import GRACE_SECONDS, Answer, NoAnswer
from actord.client_direct import (
    NoWay,
    Result,
    Said,
    SlotTable,
    Terms,
    call_frame,
    hello,
    not_taken,
    read_map,
    too_late,
    unreachable,
)
from actord.client_wire import CALLER, DRAINING, ELSEWHERE, REPLY, Frame, Garbled, Reader, pack_batch
from actord.slots import slot_of

GREETING_SECONDS = 1.0
AWAY_SECONDS = 0.25  # a worker that went away is looked at again
LASTING_SECONDS = 30.0  # between two looks at a server that does not allow it
READ_BYTES = 256 * 1024


class Wire:
    """One connection to a worker. Raises ``NoWay`` when it can't be made."""

    def __init__(self, path: str, table: SlotTable, seconds: float) -> None:
        """``seconds``: for how long the worker's greeting is waited for."""
        self._socket = made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._reader = Reader()
        self._frames: list[Frame] = []
        self.usable = True
        try:
            made.settimeout(seconds)
            made.connect(path)
            made.sendall(hello(table, CALLER))
            self._terms = Terms(self._next(), table, monotonic())
        except OSError as error:  # TimeoutError is one
            made.close()
            raise unreachable(error) from None
        except Garbled:
            made.close()
            raise NoWay("what the worker says can't be read", lasting=True) from None
        except NoWay:
            made.close()
            raise

    def takes(self, body: bytes) -> bool:
        return len(body) <= self._terms.body_bytes

    def close(self) -> None:
        self.usable = False
        self._socket.close()

    def _next(self) -> Frame:
        while not self._frames:
            data = self._socket.recv(READ_BYTES)
            if not data:
                raise ConnectionResetError("the worker was lost")
            self._frames = self._reader.feed(data)
        return self._frames.pop(0)

    def call(self, type_: str, name: str, method: str, key: str | None, deadline: float, body: bytes) -> Result:
        """Raises ``NoAnswer``; ``ActorUnavailable`` at the deadline of a call that has not begun."""
        begun = self._terms.begun
        begun[0] = 0
        try:
            self._socket.settimeout(max(0.001, deadline + GRACE_SECONDS - monotonic()))
            self._socket.sendall(pack_batch([call_frame(0, type_, name, method, key, deadline, body)]))
            while True:
                frame = self._next()
                if frame[0] == REPLY:
                    _, _, status, answer, head = frame
                    return status, answer, head
                if frame[0] == ELSEWHERE:
                    raise not_taken("the call is for another worker")
                if frame[0] == DRAINING:
                    self.usable = False
                else:
                    raise Garbled("a frame that nobody asked for")
        except TimeoutError:
            self.close()
            if not begun[0]:
                raise too_late() from None
            raise NoAnswer("none came in time", sent=True) from None
        except OSError:
            self.close()
            raise NoAnswer("the worker was lost", sent=bool(begun[0])) from None
        except (Garbled, LookupError, TypeError, ValueError) as error:
            self.close()
            raise NoAnswer(f"the worker's answer can't be read: {error}", sent=True) from None
        except BaseException as error:
            if not isinstance(error, NoAnswer):  # KeyboardInterrupt: the answer is still to come
                self.close()
            raise


class Worker:
    """The connections to one worker. Guarded by the lock of the pool."""

    __slots__ = ("away_until", "idle", "looking", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.idle: list[Wire] = []
        self.looking = False  # a thread sees whether it is back
        self.away_until = 0.0


class Pool:
    """The connections to all workers. ``fetch`` asks the front for the map; ``limit`` bounds the idle ones of each."""

    def __init__(self, fetch: Callable[[], Answer], limit: int) -> None:
        self._fetch = fetch
        self._limit = limit
        self._said = Said()
        self._lock = Lock()
        self._looking = Lock()
        self._map: tuple[SlotTable, list[Worker]] | None = None
        self._look_at = 0.0  # when the map may be asked for
        self._closed = False

    def call(self, type_: str, name: str, method: str, key: str | None, deadline: float, body: bytes) -> Result | None:
        """None: it has to go through the front, nothing was sent. Raises as ``Wire.call`` does."""
        found = self._map or self._look()
        if found is None:
            return None
        table, workers = found
        worker = workers[table.owner[slot_of(type_, name)]]
        wire = self._take(worker, table, deadline)
        if wire is None:
            return None
        if not wire.takes(body):
            self._give_back(worker, wire)
            return None
        try:
            return wire.call(type_, name, method, key, deadline, body)
        except NoAnswer as error:
            if wire.usable and not error.sent:  # the worker is well, and not the one
                self._look(again=True)
            raise
        finally:
            self._give_back(worker, wire)

    def close(self) -> None:
        self._closed = True
        found, self._map = self._map, None
        if found is not None:
            self._drop(found[1])

    def _look(self, *, again: bool = False) -> tuple[SlotTable, list[Worker]] | None:
        """Ask for the map. Threads that come meanwhile wait for it."""
        before = self._map
        with self._looking:
            if self._map is not before or self._closed or monotonic() < self._look_at:
                return self._map
            if self._map is not None and not again:
                return self._map
            self._look_at = monotonic() + AWAY_SECONDS
            try:
                table = read_map(self._fetch())
            except (NoAnswer, NoWay) as error:
                self._said.say(error.reason if isinstance(error, NoAnswer) else str(error))
                self._map = None
                if isinstance(error, NoWay) and error.lasting:
                    self._look_at = monotonic() + LASTING_SECONDS
            else:
                if before is None or before[0] != table:
                    self._map = table, [Worker(path) for path in table.paths]
            if before is not None and self._map is not before:
                self._drop(before[1])
            return self._map

    def _take(self, worker: Worker, table: SlotTable, deadline: float) -> Wire | None:
        with self._lock:
            if worker.idle:
                return worker.idle.pop()
            if worker.looking or monotonic() < worker.away_until:
                return None
            worker.looking = worker.away_until > 0
        try:
            wire = Wire(worker.path, table, min(GREETING_SECONDS, max(0.001, deadline - monotonic())))
        except NoWay as error:
            self._said.say(str(error))
            worker.away_until = monotonic() + (LASTING_SECONDS if error.lasting else AWAY_SECONDS)
            self._look(again=True)
            return None
        finally:
            worker.looking = False
        worker.away_until = 0.0
        self._said.say("")
        return wire

    def _give_back(self, worker: Worker, wire: Wire) -> None:
        if wire.usable:
            with self._lock:
                if not self._closed and len(worker.idle) < self._limit:
                    worker.idle.append(wire)
                    return
        else:
            worker.away_until = monotonic() + AWAY_SECONDS
            self._drop([worker])
        wire.close()

    def _drop(self, workers: list[Worker]) -> None:
        with self._lock:
            dropped = [wire for worker in workers for wire in worker.idle]
            for worker in workers:
                worker.idle.clear()
        for wire in dropped:
            wire.close()
