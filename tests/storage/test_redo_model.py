"""Keys and values against a dict, wherever they are: commits of all kinds, folds, full disks, ends, copies, reshards.

A case is a random walk from a seed. What does not hold is told with it: ``walk(seed, path)`` goes the same way again.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from pathlib import Path

import pytest
from actord.errors import StoreFull
from actord.shards.slots import shard_of_slot, slot_of, slot_range
from actord.storage import datadir, folding, look_actor
from actord.storage.api import Alarm, Batch
from actord.storage.backup import Standing, take_backup
from actord.storage.doctor import examine
from actord.storage.look import Look, looked
from actord.storage.reshard import reshard
from actord.storage.restore import restore
from actord.storage.sqlite import SqliteStore

from tests.support.lots import cases

NAMES = [f"name-{number}" for number in range(5)]
KEYS = ["a", "a\0", "ab", "b", "c", "d", "ä", "z\uffff", "\U0001f600", "k" * 2000]
SIZES = [0, 3, 40, 100, 700, 3800, 3890, 5000]
LARGE = 10_000_000
ENOUGH_PAGES = 1 << 30


class Room:
    """Stands for the ballast: the disk is as full as ``max_page_count`` makes the database."""

    def __init__(self) -> None:
        self.free = True
        self.store: SqliteStore

    def limit(self, more: int) -> None:
        count = self.store._conn.execute("PRAGMA page_count").get
        self.store._conn.execute(f"PRAGMA max_page_count = {count + more}").fetchall()

    def run_out(self) -> None:
        self.free = False
        self.limit(0)

    def clear(self) -> None:
        self.free = True
        self.limit(ENOUGH_PAGES)

    def hold(self) -> bool:
        return self.free

    has_room = hold

    def release(self) -> bool:
        self.limit(1000)
        return True


class Held:
    """A data directory that nobody serves, for a backup."""

    moment = 5

    def __init__(self, path: Path, shards: int) -> None:
        self.path = str(path)
        self.identity = datadir.read_manifest(self.path).identity
        self.shards = [Standing(number) for number in range(shards)]

    def keep(self) -> None: ...

    def end(self) -> None: ...


class Walk:
    def __init__(self, dice: random.Random, folder: Path) -> None:
        self.dice = dice
        self.data = folder / "data"
        self.folder = folder
        self.shards = dice.choice([1, 2])
        self.model: dict[str, dict[str, bytes]] = {name: {} for name in NAMES}
        self.stores: list[SqliteStore] = []
        datadir.open_data_dir(str(self.data), shards=self.shards, ballast=0).close()
        self.open_all()

    # -- steps

    def commit(self) -> None:
        number = self.dice.randrange(self.shards)
        store, room = self.stores[number], self.stores[number]._ballast
        if self.dice.random() < 0.1:
            room.clear() if store.full else room.run_out()
        batch, after = Batch(store.commit_seq + 1), {}
        for name in self.dice.sample(NAMES, self.dice.randint(0, 3)):
            if self.home(name) == number:
                after[name] = self.change(store, batch, name)
        if self.dice.random() < 0.1 and store._conn.execute("SELECT 1 FROM actor WHERE id = 1").get:
            batch.alarms[1] = self.dice.choice([None, Alarm(5, 5)])
        try:
            store.write(batch)
        except StoreFull:
            assert not room.free
            assert store._grows(batch), "deletions find room while the disk is full"
        else:
            self.model.update(after)
        if self.dice.random() < 0.1:
            store._checkpoint_wanted = True
            store.maintain()
        self.check()

    def change(self, store: SqliteStore, batch: Batch, name: str) -> dict[str, bytes]:
        """Put changes of an actor into the batch; what it has afterwards."""
        actor = store.find_actor(slot_of("T", name), "T", name)
        if actor is None:
            actor = store.next_actor_id()
            batch.actors.append((actor, slot_of("T", name), "T", name))
        after, items = dict(self.model[name]), {}
        if self.dice.random() < 0.1:
            batch.cleared.add(actor)
            after.clear()
        only_deletions = self.dice.random() < 0.3
        for _ in range(self.dice.choice([0, 1, 2, 5, 9])):
            key = self.dice.choice(KEYS)
            size = LARGE if self.dice.random() < 0.002 else self.dice.choice(SIZES)
            items[key] = None if only_deletions or self.dice.random() < 0.3 else self.dice.randbytes(size)
            after.pop(key, None)
            if items[key] is not None:
                after[key] = items[key]
        if items or self.dice.random() < 0.5:
            batch.kv[actor] = items
        return after

    def stop(self) -> None:
        for store in self.stores:
            store.close() if self.dice.random() < 0.5 else store.abandon()
        self.open_all()
        self.check()

    def look(self) -> None:
        self.look_at(self.data)

    def back_up_and_restore(self) -> None:
        """The backup is made of the files as they are; the restored directory takes the place of the first one."""
        copy, kept, base, new = (self.folder / name for name in ("copy", "kept", "base", "new"))
        shutil.copytree(self.data, copy)
        self.sound(copy)
        if kept.exists():
            shutil.rmtree(base, ignore_errors=True)
            os.rename(kept, base)
        take_backup(Held(copy, self.shards), str(kept), base=str(base) if base.exists() else None)
        restore(str(kept), str(new))
        self.sound(new)
        self.look_at(new)
        for store in self.stores:
            store.abandon()
        shutil.rmtree(copy)
        shutil.rmtree(self.data)
        os.rename(new, self.data)
        self.open_all()
        self.check()

    def deal(self) -> None:
        for store in self.stores:
            store.abandon()
        self.shards = self.dice.choice([1, 2, 3])
        reshard(str(self.data), self.shards, slot_of=slot_of, slot_range=slot_range)
        self.open_all()
        self.check()

    # -- what has to hold

    def check(self) -> None:
        for name, rows in self.model.items():
            store = self.stores[self.home(name)]
            actor = store.find_actor(slot_of("T", name), "T", name)
            if actor is None:
                assert rows == {}
                continue
            assert store.scan(actor) == (sorted(rows.items()), True)
            assert {key: store.read(actor, key) for key in KEYS} == {key: rows.get(key) for key in KEYS}

    def look_at(self, path: Path) -> None:
        def check(look: Look) -> None:
            for name, rows in self.model.items():
                shard = self.home(name)
                actor = look_actor.find(look, shard, slot_of("T", name), "T", name)
                if actor is None:
                    assert rows == {}
                    continue
                found = look_actor.stored(look, shard, actor, keys=1000)
                assert (found.items, found.keys) == (sorted(rows.items()), len(rows))
                assert {key: look_actor.value(look, shard, actor, key) for key in KEYS} == {
                    key: rows.get(key) for key in KEYS
                }
            assert look.commits == {number: store.commit_seq for number, store in enumerate(self.stores)}

        looked(str(path), None, check)

    def sound(self, path: Path) -> None:
        report = examine(str(path), slot_of=slot_of, slot_range=slot_range, deep=True)
        assert not report.damaged, report.findings
        assert report.commits == {str(number): store.commit_seq for number, store in enumerate(self.stores)}

    # -- parts

    def home(self, name: str) -> int:
        return shard_of_slot(slot_of("T", name), self.shards)

    def open_all(self) -> None:
        self.stores = [self.open(number) for number in range(self.shards)]

    def open(self, number: int) -> SqliteStore:
        room = Room()
        room.store = store = SqliteStore.open(
            datadir.shard_paths(str(self.data), number)[0],
            shard=number,
            identity=datadir.read_manifest(str(self.data)).identity,
            slots=slot_range(number, self.shards),
            checkpoint_wal=1 << 22,
            page_cache=1 << 20,
            ballast=room,
            lock_wait=0,
        )
        return store


STEPS = {Walk.commit: 70, Walk.stop: 12, Walk.look: 8, Walk.back_up_and_restore: 5, Walk.deal: 5}


def walk(seed: int, folder: Path) -> None:
    dice = random.Random(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folding, "SLOTS", dice.choice([3, 5, 16, 256]))
        patch.setattr(folding, "MOST_ENTRIES", dice.choice([4, 12, 40, 1024]))
        patch.setattr(folding, "STEP", dice.choice([1, 2, 5, 64]))
        patch.setattr(folding, "STEP_LEAST", 1)
        patch.setattr(folding, "AT_ONCE", dice.choice([0, 0, 6]))
        patch.setattr(folding, "STEP_SECONDS", dice.choice([0.005, 0.0001, 1e-9]))
        going = Walk(dice, folder)
        for step in dice.choices(list(STEPS), list(STEPS.values()), k=60):
            step(going)
        for store in going.stores:
            store.abandon()


@pytest.mark.parametrize("case", range(cases(12)))
def test_what_is_read_is_what_was_committed_whatever_happens_between(case: int) -> None:
    seed = random.randrange(1 << 32)  # which pytest shows when it fails
    shm = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=shm, prefix="actord-redo-") as folder:
        walk(seed, Path(folder))
