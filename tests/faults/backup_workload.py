"""A program for the power-cut replay: two backups of a data directory that is being written to, one of it when its
server has crashed, and a restore.

    backup_workload.py ROOT MODE

ROOT holds ``data`` (``tests.storage.filled``), and gets the backup ``first``, ``second`` (which builds on it),
``third`` (by ``actord backup``) and the directory ``place/restored``, made of ``second`` by ``actord restore``. On
standard output, each line when it holds:

    write SHARD COMMIT              that commit is durable
    moment NAME COMMIT COMMIT       where the shards of a backup stand: what was acknowledged before is in it
    backup NAME                     it is there
    ... restored ...                by the command

MODE:

    right           nothing is planted
    json-early      a backup gets its backup.json and its name before its files are synced
    no-sync         the files of a backup are never synced
    manifest-first  a restored directory gets its manifest before its shards
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from actord.server.cli import main
from actord.storage import backup, backup_files, datadir, restore
from actord.storage.api import Batch
from actord.storage.backup import Standing, take_backup
from actord.storage.files import fsync_path

from tests.storage.filled import BEFORE, opened

WRITES = 6  # of each shard, while a backup is taken
PINNED = "backup"


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


class Serving:
    """The shards of a data directory, pinned as a worker does it, and written to while they are copied."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.identity = datadir.read_manifest(self.path).identity
        self.moment = 0
        self.stores = [opened(path, number, BEFORE) for number in range(BEFORE)]
        self.shards: list[Standing] = []
        self.left = 0

    def pin(self, name: str) -> Serving:
        pins = [store.pin(PINNED, seconds=60, log_limit=1 << 30) for store in self.stores]
        self.shards = [Standing(number, *pin) for number, pin in enumerate(pins)]
        self.left = WRITES
        say(f"moment {name} {' '.join(str(at.commit_seq) for at in self.shards)}")
        return self

    def write(self) -> None:
        for number, store in enumerate(self.stores):
            seq = store.commit_seq + 1
            batch = Batch(seq)
            batch.kv[1] = {"n": b"%d" % seq, "much": bytes([seq % 256]) * 3000}
            store.write(batch)
            store.sync()
            say(f"write {number} {seq}")
            store.maintain()

    def keep(self) -> None:
        if self.left:
            self.left -= 1
            self.write()

    def end(self) -> None:
        held = [store.unpin(PINNED) for store in self.stores]
        assert all(held)


def no_sync() -> None:
    real = backup_files.copy_file

    def careless(*args: Any, **kwargs: Any) -> Any:
        os.fsync, kept = lambda fd: None, os.fsync
        try:
            return real(*args, **kwargs)
        finally:
            os.fsync = kept

    backup.copy_file = careless


def json_early() -> None:
    global take_backup
    no_sync()
    real = take_backup

    def late(source: Any, dest: str, **kwargs: Any) -> Any:
        made = real(source, dest, **kwargs)
        for folder, _, names in os.walk(dest):
            for name in names:
                fsync_path(os.path.join(folder, name))
        return made

    take_backup = late


def manifest_first() -> None:
    def early(staging: str, target: str) -> None:
        for name in ("manifest.json", "shards", "tokens.json"):
            os.rename(os.path.join(staging, name), os.path.join(target, name))
            fsync_path(target)
        os.rmdir(staging)
        fsync_path(target)

    restore._move = early


BUGS = {"no-sync": no_sync, "json-early": json_early, "manifest-first": manifest_first}


def actord(*words: str) -> None:
    sys.argv = ["actord", *words]
    try:
        main()
    except SystemExit as error:
        if error.code:
            raise


def run(root: Path, mode: str) -> None:
    if mode in BUGS:
        BUGS[mode]()
    serving = Serving(root / "data")
    serving.write()
    take_backup(serving.pin("first"), str(root / "first"))
    say("backup first")
    serving.write()
    take_backup(serving.pin("second"), str(root / "second"), base=str(root / "first"))
    say("backup second")
    for store in serving.stores:
        store.abandon()
    say(f"moment third {' '.join(str(store.commit_seq) for store in serving.stores)}")
    actord("backup", str(root / "third"), "--data-dir", str(root / "data"), "--base", str(root / "second"))
    say("backup third")
    actord("restore", str(root / "second"), str(root / "place" / "restored"))


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2])
