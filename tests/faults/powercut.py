"""Power cuts by replay: record what a program does to a directory, then build what a disk could hold afterwards.

``record`` runs a program under strace and keeps every operation on the files below a directory, and every byte that
it sent anywhere else (a pipe, a socket). ``states`` stops the record at many points and yields, for each, directories
that a power cut at that point could leave behind:

* ``kept``     everything arrived (what kill -9 leaves);
* ``dropped``  whatever no fsync covers is gone, new names and renames too;
* ``prefix``   the unsynced operations arrived up to some point of their order;
* ``torn``     of every unsynced write each sector of 512 bytes arrived or did not, by the toss of a seeded coin;
* ``apart``    the unsynced operations of each file, and those of each directory, arrived up to a point of their own:
               in another order than the program's (only where asked for).

The model is stricter than ext4: a name lasts only once its directory was synced (ext4 has one order of all names, which
``apart`` does not keep; within one directory the order is kept), an fsync covers only what had returned before it
began, and after an fsync that failed the pages count as clean, so no later fsync writes them. A directory has its names
wherever it is: what was synced in it goes along when it is renamed, and a name in it leads nowhere while its own does.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from tests.faults.recording import Event, Log, Name, Op, Send, Sync, record, unavailable

__all__ = [
    "APART",
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

_T = TypeVar("_T")

SECTOR = 512
KINDS = ("kept", "dropped", "prefix", "torn")
APART = (*KINDS, "apart")


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


@dataclass(frozen=True)
class _Folder:
    number: int


@dataclass(frozen=True, eq=False)
class _Change:
    """Of the directory ``folder``: ``name`` now leads to ``to`` (None: to nothing), ``old`` no longer to anything.

    ``source``: the directory of ``old``. A move from one directory to another is durable when one of them was synced.
    """

    folder: int
    name: str
    to: int | _Folder | None
    old: str | None
    source: int


_ROOT = 0
_Tree = dict[int, dict[str, int | _Folder]]  # by directory and name: the inode of a file, or a directory


class _Disk:
    """The files as the record goes on: what is durable, and what is still under way."""

    def __init__(self, log: Log) -> None:
        self.base: dict[int, bytearray] = {}
        self.tree: _Tree = {_ROOT: {}}  # durable
        self.folders: dict[str, int] = {"": _ROOT}  # where each directory is now, durable or not
        for number, (name, content) in enumerate(sorted(log.initial.items())):
            self.base[number] = bytearray(content)
            self.tree[self.folder(os.path.dirname(name))][os.path.basename(name)] = number
        for name in log.folders:
            self.folder(name)
        self.ops: list[Op] = []  # not all durable; in order
        self.durable: set[Op] = set()
        self.lost: set[Op] = set()  # a failed fsync has called them clean
        self.pending: list[_Change] = []

    def folder(self, path: str) -> int:
        """The number of a directory; one that was there before the record began."""
        if path not in self.folders:
            made = _Folder(len(self.tree))
            self.tree[made.number] = {}
            self.tree[self.folder(os.path.dirname(path))][os.path.basename(path)] = made
            self.folders[path] = made.number
        return self.folders[path]

    def apply(self, event: Event) -> None:
        if isinstance(event, Op):
            self.ops.append(event)
        elif isinstance(event, Name):
            self.pending.append(self.change(event))
        elif isinstance(event, Sync) and event.end:
            if event.inode is not None:
                covered = [op for op in self.ops if op.inode == event.inode and op.ended <= event.begun]
                if event.failed:
                    self.lost.update(op for op in covered if op not in self.durable)
                else:
                    self.durable.update(op for op in covered if op not in self.lost)
                    self.fold()
            elif not event.failed:
                self.sync_names(self.folder("" if event.path == "." else event.path))

    def sync_names(self, folder: int) -> None:
        """A move takes with it what came before it in its other directory."""
        synced, durable = {folder}, []
        for change in reversed(self.pending):
            if {change.folder, change.source} & synced:
                synced |= {change.folder, change.source}
                durable.append(change)
        for change in reversed(durable):
            _change(self.tree, change)
            self.pending.remove(change)

    def change(self, event: Name) -> _Change:
        path, name = os.path.split(event.path)
        old = None if event.old is None else os.path.basename(event.old)
        source = self.folder(path if event.old is None else os.path.dirname(event.old))
        to: int | _Folder | None = event.inode
        if event.directory and event.old is not None:
            to = _Folder(self.folders[event.old])
            for place in [place for place in self.folders if place == event.old or place.startswith(event.old + "/")]:
                self.folders[event.path + place[len(event.old) :]] = self.folders.pop(place)
        elif event.directory:
            to = _Folder(len(self.tree))
            self.tree[to.number] = {}
            self.folders[event.path] = to.number
        elif to is None:
            self.folders.pop(event.path, None)
        return _Change(self.folder(path), name, to, old, source)

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
        tree: _Tree = {number: dict(names) for number, names in self.tree.items()}
        pending, ops = self.pending, self.ops
        if kind == "apart":
            moves = any(change.source != change.folder for change in pending)  # of two directories, in one order
            parts = _by(pending, lambda change: 0 if moves else change.folder)
            pending = [change for part in parts for change in _some(part, rng)]
        elif kind != "kept":
            pending = [] if kind == "dropped" else _some(pending, rng)
        for change in pending:
            _change(tree, change)
        names, dirs = _walk(tree)
        if kind == "apart":
            arrived = {op for part in _by(ops, lambda op: op.inode) for op in _some(part, rng)}
        elif kind == "prefix":
            arrived = set(_some(ops, rng))
        else:
            arrived = set(ops if kind == "kept" else ())
        contents: dict[int, bytearray] = {}
        for inode in set(names.values()):
            contents[inode] = bytearray(self.base.get(inode, b""))
        for op in ops:
            if op.inode not in contents:
                continue
            if op in self.durable or op in arrived:
                _write(contents[op.inode], op)
            elif kind == "torn":
                _tear(contents[op.inode], op, rng)
        return {name: bytes(contents[inode]) for name, inode in names.items()}, frozenset(dirs)


def _some(items: list[_T], rng: random.Random) -> list[_T]:
    return items[: rng.randint(0, len(items))]


def _by(items: list[_T], key: Callable[[_T], int]) -> list[list[_T]]:
    found: dict[int, list[_T]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return list(found.values())


def _change(tree: _Tree, change: _Change) -> None:
    names = tree[change.folder]
    if change.old is not None:
        tree[change.source].pop(change.old, None)
    if change.to is None:
        names.pop(change.name, None)
    else:
        names[change.name] = change.to


def _walk(tree: _Tree, number: int = _ROOT, path: str = "") -> tuple[dict[str, int], set[str]]:
    """All files with their inodes, and all directories, that a path leads to."""
    files, folders = {}, set()
    for name, to in tree[number].items():
        if isinstance(to, _Folder):
            below, deeper = _walk(tree, to.number, f"{path}{name}/")
            files |= below
            folders |= deeper | {path + name}
        else:
            files[path + name] = to
    return files, folders


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
