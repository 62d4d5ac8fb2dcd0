"""Power cuts by replay: record what a program does to a directory, then build what a disk could hold afterwards.

``record`` runs a program under strace and keeps every operation on the files below a directory, and every byte that
it sent anywhere else (a pipe, a socket). ``states`` stops the record at many points and yields, for each, directories
that a power cut at that point could leave behind:

* ``kept``     everything arrived (what kill -9 leaves);
* ``dropped``  whatever no fsync covers is gone, new names and renames too;
* ``prefix``   the unsynced operations arrived up to some point of their order;
* ``torn``     of every unsynced write each sector of 512 bytes arrived or did not, by the toss of a seeded coin.

The model is stricter than ext4: a name lasts only once its directory was synced, an fsync covers only what had
returned before it began, and after an fsync that failed the pages count as clean, so no later fsync writes them.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.faults.recording import Event, Log, Name, Op, Send, Sync, record, unavailable

__all__ = [
    "KINDS",
    "Log",
    "Name",
    "Op",
    "Send",
    "State",
    "Sync",
    "audit",
    "points_of",
    "record",
    "states",
    "unavailable",
]

SECTOR = 512
KINDS = ("kept", "dropped", "prefix", "torn")


@dataclass(frozen=True)
class State:
    """What a disk may hold after a power cut behind event number ``point`` of the log."""

    point: int
    kind: str
    ack_count: int  # acknowledgements that had left by then
    files: dict[str, bytes]
    directories: frozenset[str]

    def materialise(self, directory: str) -> None:
        for name in sorted(self.directories):
            os.makedirs(os.path.join(directory, name), exist_ok=True)
        for name, content in self.files.items():
            path = os.path.join(directory, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(content)


class _Disk:
    """The files as the record goes on: what is durable, and what is still under way."""

    def __init__(self, log: Log) -> None:
        self.base: dict[int, bytearray] = {}
        self.durable_names: dict[str, int] = {}
        self.durable_dirs: set[str] = set()
        for number, (name, content) in enumerate(sorted(log.initial.items())):
            self.base[number] = bytearray(content)
            self.durable_names[name] = number
        self.ops: list[Op] = []  # not all durable; in order
        self.durable: set[Op] = set()
        self.lost: set[Op] = set()  # a failed fsync has called them clean
        self.pending_names: list[Name] = []

    def apply(self, event: Event) -> None:
        if isinstance(event, Op):
            self.ops.append(event)
        elif isinstance(event, Name):
            self.pending_names.append(event)
        elif isinstance(event, Sync) and event.end:
            if event.inode is not None:
                covered = [op for op in self.ops if op.inode == event.inode and op.ended <= event.begun]
                if event.failed:
                    self.lost.update(op for op in covered if op not in self.durable)
                else:
                    self.durable.update(op for op in covered if op not in self.lost)
                    self.fold()
            elif not event.failed:
                here = "" if event.path == "." else event.path
                for name in [name for name in self.pending_names if os.path.dirname(name.path) == here]:
                    _rename(self.durable_names, self.durable_dirs, name)
                    self.pending_names.remove(name)

    def fold(self) -> None:
        """Put durable operations that nothing uncertain of the same file precedes into the base."""
        blocked: set[int] = set()
        rest = []
        for op in self.ops:
            if op in self.durable and op.inode not in blocked:
                self.durable.discard(op)
                _write(self.base.setdefault(op.inode, bytearray()), op)
            else:
                blocked.add(op.inode)
                rest.append(op)
        self.ops = rest

    def state(self, kind: str, rng: random.Random) -> tuple[dict[str, bytes], frozenset[str]]:
        names, dirs = dict(self.durable_names), set(self.durable_dirs)
        pending = self.pending_names
        ops = self.ops
        keep_names = {"kept": len(pending), "dropped": 0}.get(kind)
        if keep_names is None:
            keep_names = rng.randint(0, len(pending))
        for name in pending[:keep_names]:
            _rename(names, dirs, name)
        last = {"kept": len(ops), "dropped": 0, "torn": len(ops)}.get(kind)
        if last is None:
            last = rng.randint(0, len(ops))
        contents: dict[int, bytearray] = {}
        for inode in set(names.values()):
            contents[inode] = bytearray(self.base.get(inode, b""))
        for number, op in enumerate(ops):
            if op.inode not in contents:
                continue
            if op in self.durable or (number < last and kind != "torn"):
                _write(contents[op.inode], op)
            elif kind == "torn":
                _tear(contents[op.inode], op, rng)
        return {name: bytes(contents[inode]) for name, inode in names.items()}, frozenset(dirs)


def _rename(names: dict[str, int], dirs: set[str], change: Name) -> None:
    if change.directory:
        dirs.add(change.path)
        return
    if change.old is not None:
        names.pop(change.old, None)
    if change.inode is None:
        names.pop(change.path, None)
        dirs.discard(change.path)
    else:
        names[change.path] = change.inode


def _write(content: bytearray, op: Op) -> None:
    if op.data is None:
        del content[op.offset :]
        content.extend(bytes(op.offset - len(content)))
        return
    if len(content) < op.offset:
        content.extend(bytes(op.offset - len(content)))
    content[op.offset : op.offset + len(op.data)] = op.data


def _tear(content: bytearray, op: Op, rng: random.Random) -> None:
    if op.data is None:
        if rng.random() < 0.5:
            _write(content, op)
        return
    start, end = op.offset, op.offset + len(op.data)
    while start < end:
        stop = min(end, (start // SECTOR + 1) * SECTOR)
        if rng.random() < 0.5:
            _write(content, Op(op.inode, start, op.data[start - op.offset : stop - op.offset]))
        start = stop


def points_of(log: Log, seed: int, most: int, *, acks: Callable[[Send], int] | None = None) -> list[int]:
    """About ``most`` positions: all around sends and the end always, then around syncs and names, others by lot.

    With ``acks``, of the sends only those that carry acknowledgements count, and of these by lot what ``most`` allows.
    """
    always, marked = {0, len(log.events)}, set()
    for number, event in enumerate(log.events):
        if isinstance(event, Send):
            if acks is None:
                always |= {number, number + 1}
            elif acks(event):
                marked |= {number, number + 1}
        elif not isinstance(event, Op):
            marked |= {number, number + 1}
    rng = random.Random(seed)
    for candidates in (marked - always, set(range(len(log.events))) - marked - always):
        room = max(0, most - len(always))
        always |= set(rng.sample(sorted(candidates), min(room, len(candidates))))
    return sorted(always)


def states(
    log: Log,
    seed: int,
    *,
    acks: Callable[[Send], int],
    points: list[int] | None = None,
    kinds: tuple[str, ...] = KINDS,
) -> Iterator[State]:
    """The states of a disk behind each of ``points`` (all of them by default), in every kind of ``kinds``.

    ``acks`` says how many acknowledgements a send carried; an equal state with as many of them comes once.
    """
    wanted = set(range(len(log.events) + 1) if points is None else points)
    disk = _Disk(log)
    count = 0
    seen: set[int] = set()
    for point in range(len(log.events) + 1):
        if point:
            event = log.events[point - 1]
            if isinstance(event, Send):
                count += acks(event)
            else:
                disk.apply(event)
        if point not in wanted:
            continue
        for number, kind in enumerate(kinds):
            files, directories = disk.state(kind, random.Random((seed * 1_000_003 + point) * 7 + number))
            digest = hash((count, directories, tuple(sorted(files.items()))))
            if digest not in seen:
                seen.add(digest)
                yield State(point, kind, count, files, directories)


def audit(found: Iterator[State], check: Callable[[str, State], str | None], *, scratch: str) -> tuple[int, list[str]]:
    """Build each state in a directory below ``scratch`` and have it checked; returns how many, and what was wrong.

    ``check(directory, state)`` returns a sentence about what is wrong, or None.
    """
    wrong = []
    total = 0
    for state in found:
        total += 1
        directory = os.path.join(scratch, f"state-{total}")
        os.mkdir(directory)
        try:
            state.materialise(directory)
            problem = check(directory, state)
            if problem is not None:
                wrong.append(f"event {state.point}, {state.kind}, {state.ack_count} acknowledged: {problem}")
        finally:
            shutil.rmtree(directory)
    return total, wrong


def scratch_parent() -> str | None:
    """A directory in memory for the states, where there is one: their own syncs prove nothing and cost much."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
