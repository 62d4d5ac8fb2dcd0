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
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

SECTOR = 512
KINDS = ("kept", "dropped", "prefix", "torn")

_CALLS = (
    "open,openat,creat,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,fallocate,fsync,fdatasync,"
    "sync_file_range,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,link,linkat,symlink,lseek,mmap,"
    "sendto,sendmsg,copy_file_range,sendfile"
)
_WHOLE = re.compile(r"^(\d+)\s+(\w+)\((.*)\)\s+= (-?\d+|\?)(?:<.*)?(?: .*)?$", re.DOTALL)
_BEGUN = re.compile(r"^(\d+)\s+(\w+)\((.*) <unfinished \.\.\.>$", re.DOTALL)
_ENDED = re.compile(r"^(\d+)\s+<\.\.\. (\w+) resumed>(.*)$", re.DOTALL)
_FD = re.compile(r"^(\d+|AT_FDCWD)<([^>]*)>")
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')


class Unsupported(Exception):
    """The program did something to the directory that the model does not know: the replay would be worth nothing."""


@dataclass(eq=False)
class Op:
    """A change of one file's content: ``data`` at ``offset``, or with ``data`` None a new length ``offset``."""

    inode: int
    offset: int
    data: bytes | None
    begun: int = 0  # positions in the log
    ended: int = sys.maxsize


@dataclass(eq=False)
class Name:
    """A change of one directory: ``path`` now leads to ``inode`` (None: to nothing). ``old`` vanishes with it."""

    path: str
    inode: int | None
    old: str | None = None
    directory: bool = False


@dataclass(eq=False)
class Sync:
    """An fsync of a file (``inode``) or a directory (``path``). ``end`` is False where it begins."""

    inode: int | None
    path: str
    begun: int
    end: bool
    failed: bool = False


@dataclass(eq=False)
class Send:
    """Bytes for somebody outside: ``target`` is strace's name of the descriptor, as ``pipe:[123]``."""

    pid: int
    target: str
    data: bytes


Event = Op | Name | Sync | Send


@dataclass
class Log:
    initial: dict[str, bytes]  # the files below the directory at the start, by relative path
    events: list[Event] = field(default_factory=list)
    returncode: int = 0
    stdout: bytes = b""


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


def record(
    argv: list[str],
    data_dir: str,
    *,
    inject: list[str] | None = None,
    env: dict[str, str] | None = None,
    timeout: float = 120.0,
) -> Log:
    """Run ``argv`` under strace and return what it did below ``data_dir``. Its exit code is ``Log.returncode``.

    ``inject``: fault injections of strace, as ``fdatasync:error=EIO:when=5``.
    """
    root = os.path.realpath(data_dir)
    log = Log(_snapshot(root))
    with tempfile.NamedTemporaryFile(suffix=".strace") as trace:
        command = ["strace", "-f", "-y", "-xx", "-s", "16777216", "-o", trace.name, "-e", f"trace={_CALLS}"]
        for fault in inject or []:
            command += ["-e", f"inject={fault}"]
        # A pipe, also when our own output goes to a file: what is sent to one counts as sent.
        done = subprocess.run(
            [*command, *argv],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=env,
            timeout=timeout,
            check=False,
        )
        log.returncode, log.stdout = done.returncode, done.stdout
        with open(trace.name, encoding="latin-1") as lines:
            _Parser(log, root).feed(lines)
    return log


def _snapshot(root: str) -> dict[str, bytes]:
    files = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                files[os.path.relpath(path, root)] = file.read()
    return files


class _Parser:
    """From strace's lines to events. Calls of several threads come as a beginning and an end on lines of their own."""

    def __init__(self, log: Log, root: str) -> None:
        self.log = log
        self.root = root
        self.names = {name: number for number, name in enumerate(sorted(log.initial))}
        self.inodes = len(self.names)
        self.offsets: dict[tuple[int, str], int] = {}
        self.open_calls: dict[str, tuple[str, list[Event]]] = {}

    def feed(self, lines: Iterable[str]) -> None:
        for raw in lines:
            line = raw.rstrip("\n")
            if match := _BEGUN.match(line):
                pid, call, arguments = match.groups()
                self.open_calls[pid] = (arguments, self.begin(int(pid), call, arguments))
            elif match := _ENDED.match(line):
                pid, call, rest = match.groups()
                arguments, events = self.open_calls.pop(pid)
                if whole := _WHOLE.match(f"{pid} {call}({arguments}{rest}"):
                    self.end(call, whole[3], whole[4], events)
            elif match := _WHOLE.match(line):
                pid, call, arguments, result = match.groups()
                self.end(call, arguments, result, self.begin(int(pid), call, arguments))

    def relative(self, path: str) -> str | None:
        if path == self.root:
            return "."
        if path.startswith(self.root + "/") and not path.endswith(" (deleted)"):
            return path[len(self.root) + 1 :]
        return None

    def begin(self, pid: int, call: str, arguments: str) -> list[Event]:
        """What may take effect from here on."""
        events: list[Event] = []
        if call in ("write", "pwrite64", "writev", "pwritev", "pwritev2", "sendto", "sendmsg"):
            fd, target = _descriptor(arguments)
            name = self.relative(target)
            data = _data(arguments)
            if name is None:
                if not target.startswith("/") or target.startswith("/dev/"):
                    events.append(Send(pid, target, data))
            elif call in ("write", "pwrite64"):
                offset = int(arguments.rsplit(", ", 1)[1]) if call == "pwrite64" else self.offsets.get((fd, name), 0)
                events.append(Op(self.names[name], offset, data, len(self.log.events)))
            else:
                raise Unsupported(f"{call} on {name}")
        elif call in ("fsync", "fdatasync"):
            name = self.relative(_descriptor(arguments)[1])
            if name is not None:
                events.append(Sync(self.names.get(name), name, len(self.log.events), end=False))
        elif call == "ftruncate":
            name = self.relative(_descriptor(arguments)[1])
            if name is not None:
                events.append(Op(self.names[name], int(arguments.rsplit(", ", 1)[1]), None, len(self.log.events)))
        self.log.events += events
        return events

    def end(self, call: str, arguments: str, result: str, events: list[Event]) -> None:
        number = int(result) if result != "?" else -1
        for event in events:
            if isinstance(event, Op):
                if number < 0:
                    self.log.events.remove(event)
                    continue
                event.ended = len(self.log.events)
                if event.data is not None:
                    event.data = event.data[:number]
                    if call == "write":
                        fd, target = _descriptor(arguments)
                        self.offsets[fd, self.relative(target) or ""] = event.offset + number
            elif isinstance(event, Sync):
                self.log.events.append(Sync(event.inode, event.path, event.begun, end=True, failed=number < 0))
            elif number >= 0:
                event.data = event.data[:number]
        if events or number < 0:
            return
        if call in ("open", "openat", "creat"):
            self.opened(arguments, number)
        elif call == "lseek":
            fd, target = _descriptor(arguments)
            if (name := self.relative(target)) is not None:
                self.offsets[fd, name] = number
        elif call in ("unlink", "unlinkat", "rmdir"):
            for name in self.paths(arguments)[:1]:
                self.names.pop(name, None)
                self.log.events.append(Name(name, None))
        elif call in ("mkdir", "mkdirat"):
            for name in self.paths(arguments)[:1]:
                self.log.events.append(Name(name, None, directory=True))
        elif call in ("rename", "renameat", "renameat2"):
            self.renamed(arguments)
        elif call not in ("fsync", "fdatasync", "write", "pwrite64", "sendto", "sendmsg", "writev", "ftruncate"):
            self.refuse(call, arguments)

    def opened(self, arguments: str, fd: int) -> None:
        for name in self.paths(arguments)[:1]:
            if "O_DIRECTORY" in arguments or name == ".":
                return
            self.offsets[fd, name] = 0
            if "O_APPEND" in arguments:
                raise Unsupported(f"O_APPEND on {name}")
            if name not in self.names and "O_CREAT" in arguments:
                self.names[name] = self.inodes
                self.log.events.append(Name(name, self.inodes))
                self.inodes += 1
            elif "O_TRUNC" in arguments:
                position = len(self.log.events)
                self.log.events.append(Op(self.names[name], 0, None, position, position))

    def renamed(self, arguments: str) -> None:
        names = self.paths(arguments)
        if not names:
            return
        if len(names) != 2 or names[0] not in self.names or os.path.dirname(names[0]) != os.path.dirname(names[1]):
            raise Unsupported(f"rename of {names}")
        inode = self.names.pop(names[0])
        self.names[names[1]] = inode
        self.log.events.append(Name(names[1], inode, old=names[0]))

    def refuse(self, call: str, arguments: str) -> None:
        if call == "mmap" and not ("MAP_SHARED" in arguments and "PROT_WRITE" in arguments):
            return
        found = [bytes.fromhex(part.replace("\\x", "")).decode("utf-8", "replace") for part in _paths_in(arguments)]
        inside = [name for name in map(self.relative, found) if name is not None]
        # Room that is kept, and blocks that are reserved, hold no data.
        if inside and not (call == "fallocate" and inside[0].endswith(".ballast")):
            raise Unsupported(f"{call} on {inside}")

    def paths(self, arguments: str) -> list[str]:
        """The path arguments that lie below the directory, relative to it."""
        found = []
        base = _FD.match(arguments)
        for match in _STRING.finditer(arguments):
            path = _unhex(match[1]).decode("utf-8", "surrogateescape")
            if base is not None:
                path = os.path.join(_unhex(base[2]).decode(), path)
            name = self.relative(os.path.normpath(path))
            if name is not None:
                found.append(name)
        return found


def _unhex(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", "")) if text.startswith("\\x") else text.encode()


def _descriptor(arguments: str) -> tuple[int, str]:
    match = _FD.match(arguments)
    if match is None:  # strace could not name it
        return int(re.match(r"-?\d+", arguments)[0]), "?"  # type: ignore[index]
    return int(match[1]), _unhex(match[2]).decode("utf-8", "surrogateescape")


def _paths_in(arguments: str) -> list[str]:
    return re.findall(r"[<\"]((?:\\x[0-9a-f]{2})+)[>\"]", arguments)


def _data(arguments: str) -> bytes:
    parts = []
    for match in _STRING.finditer(arguments):
        if match[2]:
            raise Unsupported("strace cut a write short")
        parts.append(_unhex(match[1]))
    return b"".join(parts)


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


def points_of(log: Log, seed: int, most: int) -> list[int]:
    """About ``most`` positions: all around sends and the end always, then around syncs and names, others by lot."""
    always, marked = {0, len(log.events)}, set()
    for number, event in enumerate(log.events):
        if isinstance(event, Send):
            always |= {number, number + 1}
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
