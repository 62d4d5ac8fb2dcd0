"""Runs ``fdatasync``: off the loop, by the kernel's own asynchronous I/O or by a thread; or in the loop's thread.

1. ``done(error or None)`` runs on the loop, once for each submit: later, or, where ``here`` was true, before ``submit``
   returns.
2. ``done(None)`` means that the store's ``sync`` promise holds for every batch written before ``submit``.
3. A sync that failed breaks its store, whichever way it ran, and is never tried again.
4. A slow disk, or one that has become slow, holds up the loop for one sync of ``AFTER_A_STALL`` at most.
5. ``here`` that is false stays so until ``submit`` if nothing else runs meanwhile: who asked may count on it.

Off the loop, turns run while the disk works: 25 to 40 % more calls where a sync takes 2 ms, 5 to 10 % where it takes
0.1. The kernel's way (``IOCB_CMD_FDSYNC``, Linux 4.18, the same ``vfs_fsync`` as the system call) needs no thread, and
so no handing over of the interpreter lock twice for each commit: it measured 12 µs less CPU a call at 64 connections.
It is not everywhere (other systems, seccomp profiles, ``fs.aio-max-nr`` used up), hence the thread.

But the kernel's threads need a core first, and Linux gives it to them late while the worker never rests. Behind a
worker with more calls than it can make, one sync in a thousand took 0.1 to 0.8 s of which the disk had 0.2 ms: its
kworker was ready to run all that time (6.18; ftrace). Beside one hot name that fills the core, calls to others took 4.1
and 122 ms (p50, p99), and 2.5 and 5.4 with syncs in the loop. So ``auto`` runs them in the loop while the core is
pressed and the disk is quick; in a thread, which has the worker's share of the core, while it is slow; and leaves them
to the kernel otherwise. One that the kernel has as the worker becomes full is *overtaken*: the same log is synced in
the loop, and what becomes of the kernel's counts only if it fails.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import platform
import struct
import threading
from collections.abc import Callable
from math import inf
from queue import SimpleQueue
from time import monotonic
from typing import Literal, Protocol

from actord.storage.api import Store

Done = Callable[[BaseException | None], None]
Method = Literal["auto", "kernel", "thread"]

_log = logging.getLogger("actord.storage")

# Numbers of io_setup, io_getevents and io_submit; the C library has no names for them.
_SYSCALLS = {"x86_64": (206, 208, 209), "aarch64": (0, 4, 2)}
_FDSYNC = 3
_NOTIFY_EVENTFD = 1
_EVENT = struct.Struct("<QQqq")  # data, obj, res, res2
_EVENTS = 16

# The best of so many syncs in the loop says what the disk can do: others' work on the core makes single ones longer.
SAMPLE = 16
QUICK_SECONDS = 0.001
# How many syncs run off the loop when that was slower; it costs a sample to find out whether it is quick by now.
AFTER_A_SLOW_SAMPLE = 256
# A single sync of this length ends it at once, for so many syncs.
STALL_SECONDS = 0.01
AFTER_A_STALL = 16


class Flusher(Protocol):
    """One for each worker; see the promises above."""

    @property
    def here(self) -> bool:
        """The next sync will run in ``submit``."""
        ...

    def submit(self, store: Store, done: Done) -> None: ...

    def hurry(self) -> None:
        """The worker rests no more: see to it that what was submitted does not wait for its core."""
        ...

    def close(self) -> None:
        """Nothing may be waited for."""
        ...


def open_flusher(loop: asyncio.AbstractEventLoop, method: Method, pressed: Callable[[], bool]) -> Flusher:
    """``pressed``: whether the worker never rests. By time alone it may turn false, never true.

    ``kernel`` raises ``OSError`` where it can't work; ``auto`` takes the thread then.
    """
    thread = ThreadFlusher(loop)
    if method == "thread":
        return thread
    try:
        kernel = KernelFlusher(loop)
    except OSError as error:
        if method == "kernel":
            raise
        _log.info("fsyncs run in a thread: the kernel's asynchronous I/O is not available (%s)", error)
        return AdaptiveFlusher(thread, thread, pressed)
    return kernel if method == "kernel" else AdaptiveFlusher(kernel, thread, pressed)


class AdaptiveFlusher:
    """By ``rested`` unless the worker is pressed; then in the loop while the disk is quick, else by ``full``."""

    def __init__(
        self, rested: Flusher, full: Flusher, pressed: Callable[[], bool], clock: Callable[[], float] = monotonic
    ) -> None:
        self._rested = rested
        self._full = full
        self._pressed = pressed
        self._clock = clock
        self._left = SAMPLE  # of the sample
        self._best = inf
        self._off = 0  # so many more of a pressed worker go off the loop

    @property
    def here(self) -> bool:
        return not self._off and self._pressed()

    def submit(self, store: Store, done: Done) -> None:
        if not self._pressed():
            self._rested.submit(store, done)
            return
        if self._off:
            self._off -= 1
            self._full.submit(store, done)
            return
        began = self._clock()
        error = outcome_of_sync(store)
        self._judge(self._clock() - began)
        done(error)

    def hurry(self) -> None:
        if not self._off:
            self._rested.hurry()

    def close(self) -> None:
        self._rested.close()
        self._full.close()

    def _judge(self, took: float) -> None:
        self._left -= 1
        if took < self._best:
            self._best = took
        if took > STALL_SECONDS:
            self._off = AFTER_A_STALL
        elif self._left:
            return
        elif self._best > QUICK_SECONDS:
            self._off = AFTER_A_SLOW_SAMPLE
        self._left, self._best = SAMPLE, inf


class ThreadFlusher:
    """A thread that runs one sync after the other. It begins with the first one."""

    here = False

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._queue: SimpleQueue[tuple[Store, Done] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def submit(self, store: Store, done: Done) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="flush", daemon=True)
            self._thread.start()
        self._queue.put((store, done))

    def hurry(self) -> None:
        """It has the worker's share of the core already."""

    def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            self._queue.put(None)
            thread.join()

    def _run(self) -> None:
        get = self._queue.get
        report = self._loop.call_soon_threadsafe
        while (item := get()) is not None:
            store, done = item
            report(done, outcome_of_sync(store))


class _ControlBlock(ctypes.Structure):
    """``struct iocb`` of a little-endian machine (linux/aio_abi.h)."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("key", ctypes.c_uint32),
        ("rw_flags", ctypes.c_uint32),
        ("opcode", ctypes.c_uint16),
        ("priority", ctypes.c_int16),
        ("fd", ctypes.c_uint32),
        ("buffer", ctypes.c_uint64),
        ("bytes", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("reserved", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("eventfd", ctypes.c_uint32),
    )


class KernelFlusher:
    """The kernel runs the sync and writes to an eventfd that the loop watches."""

    here = False

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        numbers = _SYSCALLS.get(platform.machine()) if platform.system() == "Linux" else None
        if numbers is None or struct.calcsize("P") != 8:
            raise OSError(f"no asynchronous fdatasync on {platform.system()} {platform.machine()}")
        setup, self._getevents, self._submit = numbers
        self._syscall = ctypes.CDLL(None, use_errno=True).syscall
        self._context = ctypes.c_ulong(0)
        _checked(self._syscall(setup, _EVENTS, ctypes.byref(self._context)))
        self._loop = loop
        self._events = ctypes.create_string_buffer(_EVENT.size * _EVENTS)
        self._blocks: dict[int, tuple[_ControlBlock, ctypes.Array[ctypes.c_void_p]]] = {}
        self._waiting: dict[int, tuple[Store, Done]] = {}  # by descriptor
        self._overtaken: dict[int, tuple[Store, _ControlBlock]] = {}  # by its address
        self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        loop.add_reader(self._eventfd, self._reap)

    def submit(self, store: Store, done: Done) -> None:
        fd = store.sync_fd
        block = self._blocks.get(fd)
        if block is None:
            iocb = _ControlBlock(data=fd, opcode=_FDSYNC, fd=fd, flags=_NOTIFY_EVENTFD, eventfd=self._eventfd)
            block = self._blocks[fd] = (iocb, (ctypes.c_void_p * 1)(ctypes.addressof(iocb)))
        self._waiting[fd] = (store, done)
        if self._syscall(self._submit, self._context, 1, block[1]) != 1:
            # Nothing was begun (no room for requests, or a file system without it): sync here and now.
            del self._waiting[fd]
            self._loop.call_soon(done, outcome_of_sync(store))

    def hurry(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for fd, (store, _) in waiting.items():
            # The block goes with it: a completion carries its address, so that it is not taken for the next sync's.
            iocb, _ = self._blocks.pop(fd)
            self._overtaken[ctypes.addressof(iocb)] = store, iocb
        for store, done in waiting.values():
            done(outcome_of_sync(store))

    def close(self) -> None:
        self._loop.remove_reader(self._eventfd)
        os.close(self._eventfd)

    def _reap(self) -> None:
        try:
            os.eventfd_read(self._eventfd)
            count = _checked(self._syscall(self._getevents, self._context, 0, _EVENTS, self._events, None))
        except BlockingIOError:  # woken for nothing
            return
        except OSError as error:  # nobody will ever hear how they ended
            lost, self._waiting = self._waiting, {}
            for store, done in lost.values():
                done(store.sync_failed(error))
            return
        for i in range(count):
            fd, address, result, _ = _EVENT.unpack_from(self._events, i * _EVENT.size)
            failure = OSError(-result, os.strerror(-result)) if result else None
            overtaken = self._overtaken.pop(address, None)
            if overtaken is not None:
                if failure is not None:
                    overtaken[0].sync_failed(failure)
                continue
            store, done = self._waiting.pop(fd)
            done(None if failure is None else store.sync_failed(failure))


def outcome_of_sync(store: Store) -> BaseException | None:
    """Sync it here and now, and return what failed: what ``done`` is told."""
    try:
        store.sync()
    except BaseException as error:
        return error
    return None


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
