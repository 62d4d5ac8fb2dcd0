"""A program for the power-cut replay: commits numbered batches to a store and acknowledges each on standard output.

    store_workload.py DIRECTORY MODE [FIRST [COUNT]]

It goes on from where the store stands. What batch k writes follows from k alone, so that the audit can say what a
store has to hold at any commit number. MODE:

    right         write, sync in a thread while the next batch is written, then acknowledge
    kernel        the same with the kernel's asynchronous sync
    no-sync       planted bug: never syncs
    ack-first     planted bug: acknowledges a batch when it is written, and syncs then
    no-rewrite    planted bug: recovery takes the log as it reads it
    serve         opens the store and acknowledges all that it serves
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import threading
from collections.abc import Iterator

from actord.errors import StoreBroken
from actord.storage import folding, recovery
from actord.storage.api import Batch
from actord.storage.flush import open_flusher
from actord.storage.sqlite import SqliteStore

IDENTITY = "6f2d6f0e-3f5b-4d0b-9d9b-7c3f1d3a2b10"
ACTORS = 12
SLOTS = range(1024)

Model = dict[tuple[int, str], bytes]


def open_store(directory: str) -> SqliteStore:
    return SqliteStore.open(
        os.path.join(directory, "0000.db"),
        shard=0,
        identity=IDENTITY,
        slots=SLOTS,
        checkpoint_wal=96 * 1024,
        page_cache=1024 * 1024,
        lock_wait=0,
    )


def batch(seq: int) -> Batch:
    """What commit number ``seq`` writes."""
    rng = random.Random(seq)
    made = Batch(seq)
    if seq <= ACTORS:
        made.actors.append((seq, seq * 7, "Account", f"name-{seq}"))
    known = min(seq, ACTORS)
    if seq % 9 == 0:
        made.cleared.add(rng.randint(1, known))
    for _ in range(rng.randint(1, 8)):
        key = rng.choice(["balance", "ü", "a\0b", f"k{rng.randint(0, 30)}"])
        value = None if rng.random() < 0.2 else rng.randbytes(rng.choice([9, 9, 40, 700, 3000]))
        made.kv.setdefault(rng.randint(1, known), {})[key] = value
    return made


def models(last: int) -> Iterator[tuple[int, Model]]:
    """The contents after each commit number from 0 to ``last``; the same dict every time."""
    model: Model = {}
    yield 0, model
    for seq in range(1, last + 1):
        made = batch(seq)
        for actor in made.cleared:
            for at in [at for at in model if at[0] == actor]:
                del model[at]
        for actor, items in made.kv.items():
            for key, value in items.items():
                if value is None:
                    model.pop((actor, key), None)
                else:
                    model[actor, key] = value
        yield seq, model


def acknowledge(seq: int) -> None:
    os.write(1, b"%d\n" % seq)


async def run_kernel(store: SqliteStore, count: int) -> None:
    loop = asyncio.get_running_loop()
    flusher = open_flusher(loop, "kernel", bool)

    def flush() -> asyncio.Future[BaseException | None]:
        future: asyncio.Future[BaseException | None] = loop.create_future()
        flusher.submit(store, future.set_result)
        return future

    for _ in range(count):
        first = store.commit_seq + 1
        store.write(batch(first))
        under_way = flush()
        store.write(batch(first + 1))
        for seq in (first, first + 1):
            if error := await under_way:
                raise error
            acknowledge(seq)
            under_way = flush()
        store.write(batch(first + 2))
        await under_way  # began before that batch: it proves nothing about it
        if error := await flush():
            raise error
        acknowledge(first + 2)
        store.maintain()
    flusher.close()


def run(store: SqliteStore, mode: str, count: int) -> None:
    if mode == "kernel":
        asyncio.run(run_kernel(store, count))
        return
    for _ in range(count):
        # Two batches: the second is written while the first is synced, as the group committer does it.
        first, second = store.commit_seq + 1, store.commit_seq + 2
        store.write(batch(first))
        if mode == "no-sync":
            acknowledge(first)
            continue
        if mode == "ack-first":
            acknowledge(first)
            store.sync()
            continue
        failed: list[StoreBroken] = []
        flush = threading.Thread(target=_sync, args=(store, failed))
        flush.start()
        store.write(batch(second))
        flush.join()
        if failed:
            raise failed[0]
        acknowledge(first)
        store.sync()
        acknowledge(second)
        # And one that no sync but its own can cover.
        store.write(batch(second + 1))
        store.sync()
        acknowledge(second + 1)
        store.maintain()


def _sync(store: SqliteStore, failed: list[StoreBroken]) -> None:
    try:
        store.sync()
    except StoreBroken as error:
        failed.append(error)


def main() -> None:
    directory, mode = sys.argv[1:3]
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    if mode == "no-rewrite":
        recovery.rewrite_in_place = lambda path: None
    store = open_store(directory)
    if mode in ("serve", "no-rewrite"):
        acknowledge(store.commit_seq)
        store.abandon()
        return
    try:
        run(store, mode, count)
    except StoreBroken:
        os._exit(3)
    store.close()
    store = open_store(directory)
    run(store, mode, 2)
    os._exit(0)  # a crash, with the log in use


if __name__ == "__main__":
    folding.SLOTS, folding.STEP, folding.AT_ONCE = (
        7,
        2,
        0,
    )  # few, so that halves change places often, and commits fold between
    main()
