"""A worker that is not as it should be: planted bugs that a test has to catch, and a faster clock for evictions.

Started in the place of ``actord.shards.worker``; ``ACTORD_TEST_VARIANT`` says how it differs (several: with commas):

    no-sync           commits are never synced
    reply-first       replies leave when their batch is written, before its sync
    reply-unwritten   replies leave when their turn has ended; batches are written when a hundred calls wait
    fast-sweeps       idle instances are looked for every 10 ms
    armed             runs under strace with the arguments in the file ``ACTORD_TEST_ARMED``, which it takes away
"""

from __future__ import annotations

import asyncio
import os
import sys

from actord.shards import committer, eviction, worker
from actord.shards.call import Call, Sink
from actord.storage.api import Store
from actord.storage.flush import Done, ThreadFlusher
from actord.storage.sqlite import SqliteStore


class NoFlusher:
    """Says that it has synced."""

    here = False

    def __init__(self, loop: asyncio.AbstractEventLoop, *_: object) -> None:
        self._loop = loop

    def submit(self, store: Store, done: Done) -> None:
        self._loop.call_soon(done, None)

    def hurry(self) -> None:
        pass

    def close(self) -> None:
        pass


def no_sync() -> None:
    SqliteStore.sync = lambda self: None  # type: ignore[method-assign]
    worker.open_flusher = NoFlusher  # type: ignore[attr-defined]


def reply_first() -> None:
    # A sync in the loop would be over when _commit returns.
    worker.open_flusher = lambda loop, *_: ThreadFlusher(loop)  # type: ignore[attr-defined]
    commit = committer.GroupCommitter._commit

    def commit_and_reply(self: committer.GroupCommitter) -> None:
        commit(self)
        held = self._in_flight
        if held:
            self._in_flight = []
            self.durable_seq = self._store.commit_seq
            self._gate.release(held)
            self._gate.flush()

    committer.GroupCommitter._commit = commit_and_reply  # type: ignore[method-assign]


def reply_unwritten() -> None:
    hold = committer.GroupCommitter.hold
    kick = committer.GroupCommitter.kick

    def reply(self: committer.GroupCommitter, call: Call, seq: int) -> None:
        self._gate.release((call,))
        hold(self, Call(Sink(), 0, None, call.act, call.method, (), {}, 0, 0, 0.0), seq)

    def kick_late(self: committer.GroupCommitter) -> None:
        if len(self.held) > 100:
            kick(self)

    committer.GroupCommitter.hold = reply  # type: ignore[method-assign]
    committer.GroupCommitter.kick = kick_late  # type: ignore[method-assign]


def fast_sweeps() -> None:
    eviction.SWEEP_SECONDS = worker.SWEEP_SECONDS = 0.01  # type: ignore[attr-defined]


def armed() -> None:
    path = os.environ.pop("ACTORD_TEST_ARMED", "")  # without it: this is the traced life
    taken = f"{path}.{os.getpid()}"
    try:
        os.rename(path, taken)
    except FileNotFoundError:
        return
    with open(taken, encoding="utf-8") as file:
        arguments = file.read().splitlines()
    # -D: the tracer is a grandchild, so that this process stays the supervisor's child.
    os.execvp("strace", ["strace", "-D", "-f", "-qq", "-o", f"{taken}.trace", *arguments, sys.executable, *sys.argv])


VARIANTS = {
    "armed": armed,
    "no-sync": no_sync,
    "reply-first": reply_first,
    "reply-unwritten": reply_unwritten,
    "fast-sweeps": fast_sweeps,
}

if __name__ == "__main__":
    for name in os.environ["ACTORD_TEST_VARIANT"].split(","):
        VARIANTS[name]()
    sys.exit(worker.main(sys.argv))
