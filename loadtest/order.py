"""Log, sync, reply: in that order? Read from what strace saw of a server that one connection called call by call.

A call begins when a server's process reads from a TCP connection at the system's port, and is answered when one next
writes to such a connection. Between the two a file must have been written and then synced, and the sync must have
ended. strace holds a process still while it notes its system call, so a reply that waited for a sync is noted after
that sync's end, also across processes. Only what is read here is claimed: that some file was written and synced before
each reply, not which bytes; what is written to other files meanwhile, as databases do behind their clients' backs,
neither helps nor harms.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

READS = "read,readv,recvfrom,recvmsg"
WRITES = "write,writev,pwrite64,pwritev,pwritev2,sendto,sendmsg"
SYNCS = "fdatasync,fsync,sync_file_range,msync,io_submit"
TRACED = f"{READS},{WRITES},{SYNCS},io_getevents"

# `PID call(arguments) = result`, or in two lines: `PID call(arguments <unfinished ...>`, `PID <... call resumed>...`.
BEGUN = re.compile(r"^(\d+) +(\w+)\((.*)$")
RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)$")
RESULT = re.compile(r" = (-?\d+|\?)[^=]*$")
# With -yy a descriptor says what it is: `7</var/data/wal>`, `9<TCP:[127.0.0.1:8000->127.0.0.1:41234]>`.
DESCRIPTOR = re.compile(r"^\d+<(TCP(?:v6)?:\[[^<>]*->[^<>]*\]|/[^<>]*)>")

ASYNCHRONOUS = re.compile(r"IOCB_CMD_FD?SYNC\b[^}]*?aio_fildes=\d+<(/[^<>]*)>")
CLIENT = "client"


class Event(Enum):
    """What matters, in the order in which it happened; writes and syncs with the file."""

    ASKED = auto()
    WRITTEN = auto()
    SYNCED = auto()
    ANSWERED = auto()


@dataclass(frozen=True, slots=True)
class Order:
    """``answers`` were seen, ``after_sync`` of them behind a write and a finished sync of their own."""

    answers: int
    after_sync: int


def order(trace: str, port: int) -> Order:
    """Follow the calls in strace's words (``-f -yy``, TRACED); ``port`` is where the server listens."""
    answers = after_sync = 0
    asked = synced = False
    written: set[str] = set()
    for event, file in events(trace, port):
        if event is Event.ASKED:
            asked, synced, written = True, False, set()
        elif event is Event.WRITTEN:
            written.add(file)
        elif event is Event.SYNCED:
            synced = synced or file in written
        elif asked:  # the first part of an answer; what follows it is the rest of the same
            answers, after_sync, asked = answers + 1, after_sync + synced, False
    return Order(answers, after_sync)


def events(trace: str, port: int) -> Iterator[tuple[Event, str]]:
    """The events of a trace, in its order: writes as they begin, reads and syncs as they end."""
    under_way: dict[tuple[str, str], str] = {}
    asynchronous: list[str] = []  # files whose sync the kernel was asked for, for io_getevents to tell of
    for line in trace.splitlines():
        begun, resumed = BEGUN.match(line), RESUMED.match(line)
        if begun:
            pid, call, words = begun.groups()
            if call in WRITES.split(","):
                kind = _kind(words, port)
                if kind:
                    yield (Event.ANSWERED, "") if kind == CLIENT else (Event.WRITTEN, kind)
            if words.endswith("<unfinished ...>"):
                under_way[pid, call] = words
                continue
        elif resumed:
            pid, call, rest = resumed.groups()
            words = under_way.pop((pid, call), "") + rest
        else:
            continue
        found = RESULT.search(words)
        result = int(found[1]) if found and found[1] != "?" else -1
        if call in READS.split(","):
            if result > 0 and _kind(words, port) == CLIENT:
                yield Event.ASKED, ""
        elif call == "io_submit":
            if result > 0:
                asynchronous += ASYNCHRONOUS.findall(words)
        elif call == "io_getevents":
            for outcome in re.findall(r"\bres=(-?\d+)", words)[: len(asynchronous)]:
                file = asynchronous.pop(0)
                if outcome == "0":
                    yield Event.SYNCED, file
        elif call in SYNCS.split(",") and result == 0:
            yield Event.SYNCED, _kind(words, port) or ""


def _kind(words: str, port: int) -> str | None:
    """What the call's descriptor is: a file, by its path, CLIENT, or None for anything else."""
    found = DESCRIPTOR.match(words)
    if not found:
        return None
    what = found[1]
    if what.startswith("/"):
        return None if what.startswith(("/dev/", "/proc/", "/sys/")) else what
    return CLIENT if f":{port}->" in what else None
