"""What a worker is doing at this moment, where its supervisor can read it: also when it runs no more Python.

A worker that is stuck in a call into C that holds the interpreter answers nothing and runs no signal handler. So

1. before every step of a turn it writes the method and the key into shared memory (40 ns), and clears it when it has
   nothing to do, by the first byte alone (``NOTHING``);
2. while it commits, and so may wait for the disk, that byte is ``COMMITTING``. To kill it then would not free it;
3. on SIGUSR1 faulthandler, which needs no interpreter, appends the stack of every thread behind it.

The memory is an anonymous file that the supervisor makes and every life of the worker inherits: it outlives a kill.
"""

from __future__ import annotations

import faulthandler
import mmap
import os
import signal
from struct import Struct

from actord.limits import NAME_BYTES, TYPE_CHARS

NOTHING, COMMITTING = 0, 1  # no method's name begins with them
BOX_BYTES = 4096  # the stack stands behind them
STACK_BYTES = 64 * 1024
METHOD_BYTES = 64  # a longer name is cut

_LAYOUT = Struct(f"{METHOD_BYTES}s{TYPE_CHARS + 1 + NAME_BYTES}s")

mark = _LAYOUT.pack_into  # (box, 0, method, label of the key): zeros fill what they leave

assert _LAYOUT.size <= BOX_BYTES


def label_of(type_: str, name: str) -> bytes:
    """A key as ``mark`` takes it."""
    return f"{type_}\0{name}".encode()


def private_box() -> mmap.mmap:
    """A box that nobody else reads."""
    return mmap.mmap(-1, BOX_BYTES)


def open_box(fd: int) -> mmap.mmap:
    """The worker's side. SIGUSR1 appends stacks from now on, and goes on to the handler that it had."""
    faulthandler.register(signal.SIGUSR1, file=fd, all_threads=True, chain=True)
    return mmap.mmap(fd, BOX_BYTES)


class BlackBox:
    """The supervisor's side."""

    def __init__(self, name: str) -> None:
        self.fd = os.memfd_create(f"actord-{name}", os.MFD_CLOEXEC)
        self.reset()

    def reset(self) -> None:
        """Empty it for the next life."""
        os.ftruncate(self.fd, 0)
        os.ftruncate(self.fd, BOX_BYTES)
        os.lseek(self.fd, BOX_BYTES, os.SEEK_SET)  # the worker shares the position

    @property
    def commits(self) -> bool:
        """The worker is in the middle of a commit."""
        return os.pread(self.fd, 1, 0)[0] == COMMITTING

    def read(self) -> tuple[tuple[str, str, str] | None, str]:
        """(type, method, name) of the turn that holds the worker, None when no turn does; and the stacks."""
        method, label = _LAYOUT.unpack(os.pread(self.fd, _LAYOUT.size, 0))
        stack = os.pread(self.fd, STACK_BYTES, BOX_BYTES).decode(errors="replace")
        if method[0] in (NOTHING, COMMITTING):
            return None, stack
        method, label = method.rstrip(b"\0"), label.rstrip(b"\0")
        type_, _, name = label.decode(errors="replace").partition("\0")
        return (type_, method.decode(errors="replace"), name), stack

    def close(self) -> None:
        os.close(self.fd)
