"""What both clients need to call workers without a front between: the map, what a worker says of itself, its answers.

Promises, for ``client_direct_async`` and ``client_direct_threads`` alike:

1. A call goes to the worker that owns its name, over a unix socket of this machine, or else through the front; the
   first attempt alone goes directly, so that whatever is wrong with a worker or the map, the front has the last word.
2. A call that a worker did not take, for certain, goes through the front at once. One that had begun, and whose answer
   did not come, is an attempt whose outcome is unknown: it is made again under its key, or not at all.
   Which is which stands in the *begun map*: a byte of a file that the worker sets as the call's turn begins, and that
   only the client removes, so that it outlives the worker.
3. Nothing is sent to a worker of another map: it has to know the ticket, and to name the epoch.
4. Where there is no way to a worker (another machine or user, direct calls not allowed, another version) calls go
   through the front, and the log of ``actord.client`` says why.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import mmap
import os
from typing import NamedTuple

from actord.client_calls import REPLY_TYPE, Answer, NoAnswer
from actord.client_wire import CALL, CALLX, HELLO, PYTHON_CALL, READY, REPLY_HEAD, VERSION, Frame, pack_batch
from actord.errors import ActorUnavailable
from actord.limits import DIRECT_CALLS, NAME_BYTES
from actord.slots import SLOTS

MAP_PATH = "/-/map"
CLOCK_MS = 1_000  # worker and client that differ by more do not share a clock, and deadlines are times of it
FRAME_BYTES = 4 * NAME_BYTES  # more than a frame of ours has beside its body

log = logging.getLogger("actord.client")

Result = tuple[int, bytes, bytes | None]  # status, body, head


class NoWay(Exception):
    """Workers can't be called directly; the words say why. ``lasting``: the server would have to be changed."""

    def __init__(self, why: str, *, lasting: bool = False) -> None:
        super().__init__(why)
        self.lasting = lasting


def unreachable(error: OSError) -> NoWay:
    """A worker's socket can't be connected to. It stays so where its file is not to be seen: elsewhere, for others."""
    lasting = error.errno in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR)
    return NoWay(f"a worker's socket can't be reached: {error.strerror or 'no greeting'}", lasting=lasting)


class SlotTable(NamedTuple):
    """The map: ``owner[slot]`` is the number of a worker, ``paths[worker]`` its socket."""

    epoch: str
    ticket: str
    paths: list[str]
    owner: list[int]


def read_map(answer: Answer) -> SlotTable:
    """Raises ``NoWay``."""
    if answer.status != 200:
        raise NoWay(f"GET {MAP_PATH} was answered with {answer.status}", lasting=answer.status < 500)
    try:
        found = json.loads(answer.body)
        if found["ticket"] is None:
            raise NoWay("server.direct is off, or the token does not allow every call of every actor", lasting=True)
        owner = [-1] * SLOTS
        for worker in found["workers"]:
            for first, last in worker["slots"]:
                owner[first : last + 1] = [worker["worker"]] * (last + 1 - first)
        table = SlotTable(found["epoch"], found["ticket"], [worker["direct"] for worker in found["workers"]], owner)
        if found["hash"]["slots"] != SLOTS or len(owner) != SLOTS or not set(owner) <= set(range(len(table.paths))):
            raise ValueError("slots")
    except (LookupError, TypeError, ValueError):
        raise NoWay("the map can't be read", lasting=True) from None
    return table


def hello(table: SlotTable, caller: str) -> bytes:
    """The first bytes to a worker."""
    return pack_batch([(HELLO, VERSION, caller, table.ticket)])


class Terms:
    """What a worker says when it greets: how much it takes, and where the begun map is."""

    __slots__ = ("batch_bytes", "begun", "body_bytes")

    def __init__(self, frame: Frame, table: SlotTable, now: float) -> None:
        """``now``: monotonic. Raises ``NoWay``."""
        try:
            kind, version, facts = frame
            if kind != READY or version != VERSION:
                raise NoWay("server and client are of different versions", lasting=True)
            if facts["epoch"] != table.epoch:
                raise NoWay("the worker is of another map")
            if abs(facts["clock"] - now * 1000) > CLOCK_MS:
                raise NoWay("the worker has another clock", lasting=True)
            self.body_bytes: int = facts["body_bytes"]
            self.batch_bytes: int = facts["batch_bytes"]
            self.begun = _map(facts["begun"])
        except (LookupError, TypeError, ValueError):
            raise NoWay("what the worker says can't be read", lasting=True) from None
        except OSError as error:
            raise NoWay(f"the worker's files can't be opened: {error.strerror}") from None


def _map(path: str) -> mmap.mmap:
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        found = mmap.mmap(fd, DIRECT_CALLS)
    finally:
        os.close(fd)
    with contextlib.suppress(OSError):
        os.unlink(path)
    return found


def call_frame(id_: int, type_: str, name: str, method: str, key: str | None, deadline: float, body: bytes) -> Frame:
    """``deadline``: monotonic."""
    at = int(deadline * 1000)
    if key is None:
        return (CALL, id_, type_, name, method, PYTHON_CALL, at, body)
    return (CALLX, id_, type_, name, method, {"key": key}, PYTHON_CALL, at, body)


_HEADERS = {"Content-Type": REPLY_TYPE}


def answer_of(result: Result) -> Answer:
    """A reply as if it had come over HTTP."""
    status, body, head = result
    if head == REPLY_HEAD:
        return Answer(status, _HEADERS, body, lambda: list(_HEADERS.items()))
    lines = (head or b"Content-Type: application/json\r\n").decode("latin-1").split("\r\n")
    pairs = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines if line)]
    titled = {name.title(): value for name, value in pairs}
    return Answer(status, titled, body, lambda: pairs)


def not_taken(why: str) -> NoAnswer:
    return NoAnswer(why, sent=False)


def too_late() -> ActorUnavailable:
    """The deadline has come before the call had begun: it never will."""
    return ActorUnavailable("The worker could not take the call in time.", retry_after=1)


class Said:
    """Logs why calls go through the front, once for each reason."""

    def __init__(self) -> None:
        self._last: str | None = None

    def say(self, why: str) -> None:
        if why != self._last:
            self._last = why
            log.info("calls go through the front: %s", why) if why else log.info("calls go to the workers directly")
