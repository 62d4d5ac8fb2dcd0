"""Reading a write-ahead log by SQLite's own rules, to tell a torn end from damage. Nothing here writes.

SQLite stops at the first frame that does not fit and takes what is before it for the whole log, without a word: after
a crash that is right for the last, unsynced commit, and after bit rot it loses commits that were acknowledged.

1. ``read_log`` checks every frame: the salts of the header, and the checksum over everything before it.
2. What can't be the torn end of the log is called damage, and only that. A batch is written when the sync of the one
   before it has returned, so a power cut can tear the last commit and no other, and never the header, which is one
   sector. Hence two proofs: at least two whole commits of this log stand behind its last readable one; or the header
   is a good one but for a single bit.
3. A frame of the last commit that is good but for a single bit is a *doubt*. It can be the torn end, where a sector
   of an older frame has stayed that differs by that bit (replayed power cuts have shown it), so it is for the doctor.
4. ``damage_behind`` looks for proofs behind the frames that SQLite accepted, and reads only what is there.
5. ``newest_commit`` is for a look at a log that another process may be writing: it checks the salts of every frame, and
   the checksums of the last commit alone, which may be half written or torn.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from struct import Struct, unpack

HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
_MAGIC = 0x377F0682  # its lowest bit says that the checksums are of big-endian words
_VERSION = 3_007_000
_MASK = 0xFFFFFFFF
_HEADER = Struct(">8I")
_FRAME = Struct(">6I")

Sum = tuple[int, int]


@dataclass(slots=True)
class Log:
    """What a log holds. Frames count from 1."""

    frames: int = 0  # whole frames in the file
    valid: int = 0  # up to the last commit that SQLite would read
    commits: int = 0  # among those
    pages: dict[int, int] = field(default_factory=dict)  # page -> its newest frame among those
    size: int = 0  # the database's size after the last of them, in pages
    damage: str = ""  # what proves that something behind them is no torn end
    doubt: str = ""  # what speaks for it, without a proof


def checksum(data: bytes | memoryview, start: Sum, big: bool) -> Sum:
    """SQLite's checksum of a whole number of pairs of 32-bit words."""
    s0, s1 = start
    words = iter(unpack(f"{'>' if big else '<'}{len(data) // 4}I", data))
    for x, y in zip(words, words, strict=True):
        s0 = (s0 + x + s1) & _MASK
        s1 = (s1 + y + s0) & _MASK
    return s0, s1


class _Reader:
    """The header and the frames of one log file."""

    def __init__(self, fd: int, page_bytes: int) -> None:
        self._fd = fd
        self._frame_bytes = FRAME_HEADER_BYTES + page_bytes
        self.header = os.pread(fd, HEADER_BYTES, 0)
        self.frames = max(0, os.fstat(fd).st_size - HEADER_BYTES) // self._frame_bytes
        fields = _HEADER.unpack(self.header) if len(self.header) == HEADER_BYTES else (0,) * 8
        self.big = bool(fields[0] & 1)
        self.salts = fields[4:6]
        self.sum: Sum = (fields[6], fields[7])
        self.fits = (
            fields[0] & ~1 == _MAGIC
            and fields[1:3] == (_VERSION, page_bytes)
            and checksum(self.header[:24], (0, 0), self.big) == self.sum
        )

    def head(self, number: int) -> tuple[int, ...]:
        at = HEADER_BYTES + (number - 1) * self._frame_bytes
        return _FRAME.unpack(os.pread(self._fd, FRAME_HEADER_BYTES, at))

    def content(self, number: int) -> bytes:
        """What the checksum of a frame covers."""
        at = HEADER_BYTES + (number - 1) * self._frame_bytes
        frame = os.pread(self._fd, self._frame_bytes, at)
        return frame[:8] + frame[FRAME_HEADER_BYTES:]

    def computed(self, number: int, before: Sum) -> Sum:
        return checksum(self.content(number), before, self.big)

    def sum_before(self, number: int) -> Sum:
        """What stands in the frame before, or in the header."""
        if number == 1:
            return self.sum
        head = self.head(number - 1)
        return head[4], head[5]


def read_log(
    path: str, page_bytes: int, tick: Callable[[int], None] = lambda frame: None, *, upto: int | None = None
) -> Log:
    """Check the whole log at ``path``, or its first ``upto`` frames; an empty or missing one is a log without frames.

    Raises OSError.
    """
    log = Log()
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return log
    try:
        reader = _Reader(fd, page_bytes)
        if upto is not None:
            reader.frames = min(reader.frames, upto)
        log.frames = reader.frames
        open_pages: dict[int, int] = {}
        running = reader.sum
        number = 0
        while reader.fits and number < reader.frames:
            number += 1
            tick(number)
            page, size, salt1, salt2, sum1, sum2 = reader.head(number)
            if (salt1, salt2) != reader.salts or not page:
                break
            running = reader.computed(number, running)
            if running != (sum1, sum2):
                break
            open_pages[page] = number
            if size:
                log.pages.update(open_pages)
                open_pages.clear()
                log.valid, log.size = number, size
                log.commits += 1
        log.damage = _damage_behind(reader, log.valid)
        log.doubt = "" if log.damage or not reader.fits else _doubt_behind(reader, log.valid)
        return log
    finally:
        os.close(fd)


def newest_commit(fd: int, page_bytes: int) -> Log:
    """The frames up to the newest whole commit, of an open log. Raises OSError."""
    log = Log()
    reader = _Reader(fd, page_bytes)
    log.frames = reader.frames
    if not reader.fits:
        return log
    found: list[tuple[int, int]] = []  # page -> size of each frame of this log
    commits = [0]
    for number in range(1, reader.frames + 1):
        page, size, salt1, salt2, _, _ = reader.head(number)
        if (salt1, salt2) != reader.salts or not page:
            break
        found.append((page, size))
        if size:
            commits.append(number)
    while len(commits) > 1 and not _continues(reader, commits[-2], commits[-1]):
        commits.pop()
    log.valid = commits[-1]
    log.commits = len(commits) - 1
    for number in range(log.valid):
        log.pages[found[number][0]] = number + 1
    log.size = found[log.valid - 1][1] if log.valid else 0
    return log


def _continues(reader: _Reader, before: int, last: int) -> bool:
    """Are the frames behind ``before`` up to ``last`` whole?"""
    running = reader.sum_before(before + 1)
    for number in range(before + 1, last + 1):
        running = reader.computed(number, running)
        if running != reader.head(number)[4:6]:
            return False
    return True


def damage_behind(path: str, valid: int, page_bytes: int) -> str:
    """What proves that the log goes on behind its ``valid`` first frames; "" when nothing does. Raises OSError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return ""
    try:
        return _damage_behind(_Reader(fd, page_bytes), valid)
    finally:
        os.close(fd)


def _damage_behind(reader: _Reader, valid: int) -> str:
    if not reader.header or not reader.frames:
        return ""
    if not reader.fits:
        if _one_bit_header(reader.header):
            return "its header is good but for one bit"
        if reader.frames and _commits_behind(reader, 0, reader.head(1)[2:4]) >= 2:
            return "its header is damaged, and whole commits stand behind it"
        return ""
    commits = _commits_behind(reader, valid, reader.salts)
    if commits >= 2:
        return f"frame {valid + 1} or one soon after it is damaged, and {commits} whole commits stand behind it"
    return ""


def _doubt_behind(reader: _Reader, valid: int) -> str:
    running = reader.sum_before(valid + 1)
    for number in range(valid + 1, reader.frames + 1):  # up to the first that is not good
        page, _, salt1, salt2, sum1, sum2 = reader.head(number)
        found = reader.computed(number, running)
        salts_off = _distance((salt1, salt2), reader.salts)
        if salts_off == 0 and found == (sum1, sum2) and page:
            running = found
            continue
        if salts_off == 1 and found == (sum1, sum2):
            return f"frame {number} is good but for one bit"
        if salts_off == 0 and (
            _distance(found, (sum1, sum2)) == 1 or _one_bit(reader.content(number), found, (sum1, sum2), reader.big)
        ):
            return f"frame {number} is good but for one bit"
        return ""
    return ""


def _commits_behind(reader: _Reader, valid: int, salts: tuple[int, ...]) -> int:
    """Whole commits' last frames behind ``valid``: of this log, with a checksum that continues the frame before."""
    commits = 0
    for number in range(valid + 1, reader.frames + 1):
        _, size, salt1, salt2, sum1, sum2 = reader.head(number)
        if size and (salt1, salt2) == salts and reader.computed(number, reader.sum_before(number)) == (sum1, sum2):
            commits += 1
    return commits


def _distance(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    """The number of bits in which they differ."""
    return sum((x ^ y).bit_count() for x, y in zip(a, b, strict=True))


def _one_bit(data: bytes, found: Sum, wanted: Sum, big: bool) -> bool:
    """Whether some single bit of ``data``, flipped, turns its checksum from ``found`` into ``wanted``.

    The checksum is linear, so what a change of one word does to it is that change times a constant of its place.
    """
    d0, d1 = (wanted[0] - found[0]) & _MASK, (wanted[1] - found[1]) & _MASK
    words = unpack(f"{'>' if big else '<'}{len(data) // 4}I", data)
    first, second = (1, 1), (0, 1)  # of the last pair; each pair before it passes once more through the sum
    for at in range(len(words) - 2, -1, -2):
        for (v0, v1), word in ((first, words[at]), (second, words[at + 1])):
            for bit in range(32):
                delta = -(1 << bit) if word >> bit & 1 else 1 << bit
                if (v0 * delta) & _MASK == d0 and (v1 * delta) & _MASK == d1:
                    return True
        first = ((first[0] + first[1]) & _MASK, (first[0] + 2 * first[1]) & _MASK)
        second = ((second[0] + second[1]) & _MASK, (second[0] + 2 * second[1]) & _MASK)
    return False


def _one_bit_header(header: bytes) -> bool:
    if len(header) < HEADER_BYTES:
        return False
    for at in range(HEADER_BYTES * 8):
        changed = bytearray(header)
        changed[at // 8] ^= 1 << at % 8
        fields = _HEADER.unpack(bytes(changed))
        if (
            fields[0] & ~1 == _MAGIC
            and fields[1] == _VERSION
            and checksum(bytes(changed[:24]), (0, 0), bool(fields[0] & 1)) == (fields[6], fields[7])
        ):
            return True
    return False
