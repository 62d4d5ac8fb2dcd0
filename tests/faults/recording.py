"""Record what a program does to the files below a directory, by strace: see ``powercut`` for what it is good for.

What the record can't express (writes through shared memory, symbolic links, appending) is refused instead of left out.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field

_CALLS = (
    "open,openat,creat,write,pwrite64,writev,pwritev,pwritev2,ftruncate,truncate,fallocate,fsync,fdatasync,"
    "sync_file_range,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,link,linkat,symlink,lseek,mmap,"
    "sendto,sendmsg,copy_file_range,sendfile,io_submit,io_getevents"
)
# What counts from its beginning on; all others count when they have returned.
_BEGINNINGS = {"write", "pwrite64", "writev", "sendto", "sendmsg", "fsync", "fdatasync", "ftruncate", "io_submit"}
_WHOLE = re.compile(r"^(\d+)\s+(\w+)\((.*)\)\s+= (-?\d+|\?)(?:<.*)?(?: .*)?$", re.DOTALL)
_BEGUN = re.compile(r"^(\d+)\s+(\w+)\((.*) <unfinished \.\.\.>$", re.DOTALL)
_ENDED = re.compile(r"^(\d+)\s+<\.\.\. (\w+) resumed>(.*)$", re.DOTALL)
_FD = re.compile(r"^(\d+|AT_FDCWD)<([^>]*)>")
_SUBMITTED = re.compile(r"aio_data=(\w+), [^{}]*aio_lio_opcode=IOCB_CMD_(\w+), [^{}]*aio_fildes=\d+<([^>]*)>")
_REAPED = re.compile(r"\{data=(\w+), [^{}]*res=(-?\w+),")
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
    """A change of one directory: ``path`` now leads to ``inode`` (None: to nothing). ``old`` vanishes with it.

    With ``directory`` it leads to a new directory, or to the one that was called ``old``.
    """

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
    folders: frozenset[str] = frozenset()  # the directories below the directory at the start, empty ones too


def record(
    argv: list[str],
    data_dir: str,
    *,
    inject: list[str] | None = None,
    ignore: tuple[str, ...] = (),
    env: dict[str, str] | None = None,
    timeout: float = 600.0,
) -> Log:
    """Run ``argv`` under strace and return what it did below ``data_dir``. Its exit code is ``Log.returncode``.

    ``inject``: fault injections of strace, as ``fdatasync:error=EIO:when=5``; strace counts calls per thread.
    ``ignore``: beginnings of relative paths that are no part of the data, as ``run/``.
    """
    root = os.path.realpath(data_dir)
    files, folders = _snapshot(root, ignore)
    log = Log(files, folders=folders)
    with tempfile.NamedTemporaryFile(suffix=".strace") as trace:
        command = [
            "strace",
            "-f",
            "--seccomp-bpf",
            "-y",
            "-xx",
            "-s",
            "16777216",
            "-o",
            trace.name,
            "-e",
            f"trace={_CALLS}",
        ]
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
            _Parser(log, root, ignore).feed(lines)
    return log


def _snapshot(root: str, ignore: tuple[str, ...]) -> tuple[dict[str, bytes], frozenset[str]]:
    files, folders = {}, set()
    for folder, below, names in os.walk(root):
        folders |= {os.path.relpath(os.path.join(folder, name), root) for name in below}
        for name in names:
            path = os.path.join(folder, name)
            relative = os.path.relpath(path, root)
            if not relative.startswith(ignore):
                with open(path, "rb") as file:
                    files[relative] = file.read()
    return files, frozenset(name for name in folders if not f"{name}/".startswith(ignore))


def unavailable() -> str:
    """Why nothing can be recorded here; empty when it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    done = subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else f"strace can't trace here: {done.stderr.strip()}"


class _Parser:
    """From strace's lines to events. Calls of several threads come as a beginning and an end on lines of their own."""

    def __init__(self, log: Log, root: str, ignore: tuple[str, ...]) -> None:
        self.log = log
        self.root = root
        self.ignore = ignore
        self.names = {name: number for number, name in enumerate(sorted(log.initial))}
        self.inodes = len(self.names)
        self.folders = set(log.folders)
        self.offsets: dict[tuple[int, str], int] = {}
        self.submitted: dict[tuple[int, str], Sync] = {}  # by thread and the program's own mark
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
                    self.end(int(pid), call, whole[3], whole[4], events)
            elif match := _WHOLE.match(line):
                pid, call, arguments, result = match.groups()
                self.end(int(pid), call, arguments, result, self.begin(int(pid), call, arguments))

    def relative(self, path: str) -> str | None:
        if path == self.root:
            return "."
        if path.startswith(self.root + "/") and not path.endswith(" (deleted)"):
            name = path[len(self.root) + 1 :]
            return None if name.startswith(self.ignore) else name
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
        elif call == "io_submit":
            for mark, opcode, target in _SUBMITTED.findall(arguments):
                name = self.relative(_unhex(target).decode("utf-8", "surrogateescape"))
                if name is None:
                    continue
                if opcode not in ("FSYNC", "FDSYNC"):
                    raise Unsupported(f"asynchronous {opcode} on {name}")
                begun = Sync(self.names.get(name), name, len(self.log.events), end=False)
                self.submitted[pid, mark] = begun
                self.log.events.append(begun)
        elif call == "ftruncate":
            name = self.relative(_descriptor(arguments)[1])
            if name is not None:
                events.append(Op(self.names[name], int(arguments.rsplit(", ", 1)[1]), None, len(self.log.events)))
        self.log.events += events
        return events

    def end(self, pid: int, call: str, arguments: str, result: str, events: list[Event]) -> None:
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
        if call == "io_getevents":
            for mark, outcome in _REAPED.findall(arguments):
                if (begun := self.submitted.pop((pid, mark), None)) is not None:
                    failed = int(outcome, 0) != 0
                    self.log.events.append(Sync(begun.inode, begun.path, begun.begun, end=True, failed=failed))
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
                self.folders.discard(name)
                self.log.events.append(Name(name, None))
        elif call in ("mkdir", "mkdirat"):
            for name in self.paths(arguments)[:1]:
                self.folders.add(name)
                self.log.events.append(Name(name, None, directory=True))
        elif call in ("rename", "renameat", "renameat2"):
            self.renamed(arguments)
        elif call in ("link", "linkat"):
            self.linked(arguments)
        elif call not in (
            "io_submit",
            "fsync",
            "fdatasync",
            "write",
            "pwrite64",
            "sendto",
            "sendmsg",
            "writev",
            "ftruncate",
        ):
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
        if len(names) != 2 or "RENAME_EX" in arguments:
            raise Unsupported(f"rename of {names}")
        old, new = names
        if old in self.folders and new not in self.folders | self.names.keys():
            self.folders = {_moved(name, old, new) for name in self.folders}
            self.names = {_moved(name, old, new): inode for name, inode in self.names.items()}
            self.offsets = {(fd, _moved(name, old, new)): place for (fd, name), place in self.offsets.items()}
            self.log.events.append(Name(new, None, old=old, directory=True))
        elif old in self.names and new not in self.folders:
            self.names[new] = self.names.pop(old)
            self.log.events.append(Name(new, self.names[new], old=old))
        else:
            raise Unsupported(f"rename of {names}")

    def linked(self, arguments: str) -> None:
        names = self.paths(arguments)
        if len(names) == 2:
            self.names[names[1]] = self.names[names[0]]
            self.log.events.append(Name(names[1], self.names[names[1]]))
        elif names:
            raise Unsupported(f"link of {names}")

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


def _moved(name: str, old: str, new: str) -> str:
    return new + name[len(old) :] if name == old or name.startswith(old + "/") else name


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
