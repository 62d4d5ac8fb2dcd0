"""Backups: of one commit, whole or none; what is restored is what was there, and fences go on above it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from actord.errors import ActordError, DataDirError, DataDirLocked, StoreCorrupt
from actord.shards.slots import slot_range
from actord.storage import backup, backup_files, datadir, restore
from actord.storage.api import Batch
from actord.storage.backup import Standing, take_backup
from actord.storage.backup_files import BLOCK_BYTES, problems_of, read_backup
from actord.storage.sqlite import SqliteStore
from actord.storage.stopped import StoppedSource

from tests.storage.filled import BEFORE, content, fill, healthy, opened

LONG = bool(os.environ.get("ACTORD_TEST_LONG"))  # every step instead of every third
SHARD = "shards/0000.db"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made") / "data"
    fill(path)
    return path


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "data"))


@pytest.fixture(scope="module")
def expected(made: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return content(shutil.copytree(made, tmp_path_factory.mktemp("expected") / "data"), BEFORE)


@pytest.fixture(scope="module")
def taken(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("taken") / "backup"
    take_backup(StoppedSource(str(made)), str(folder))
    return folder


class Serving:
    """The shards of a data directory that are open in this process and pinned, as a worker does it."""

    def __init__(self, path: Path, during: Callable[[], None] = lambda: None, *, log_limit: int = 1 << 30) -> None:
        self.path = str(path)
        self.identity = datadir.read_manifest(str(path)).identity
        self.moment = 0
        self.stores = [opened(path, number, BEFORE) for number in range(BEFORE)]
        self.during = during
        self.log_limit = log_limit

    def pin(self) -> Serving:
        pins = [store.pin("backup-1", seconds=60, log_limit=self.log_limit) for store in self.stores]
        self.shards = [Standing(number, *pin) for number, pin in enumerate(pins)]
        return self

    def keep(self) -> None:
        self.during()

    def end(self) -> None:
        held = [store.unpin("backup-1") for store in self.stores]
        if not all(held):
            raise ActordError("given up")

    def close(self) -> None:
        for store in self.stores:
            store.close()


def put(store: SqliteStore, value: bytes, count: int = 1) -> None:
    """A commit with ``count`` values of the shard's first actor, and what the worker does after it."""
    batch = Batch(store.commit_seq + 1)
    batch.kv[1] = {f"k{n}": value for n in range(count)}
    store.write(batch)
    store.sync()
    store.maintain()


def values(path: Path) -> list[bytes | None]:
    stores = [opened(path, number, BEFORE) for number in range(BEFORE)]
    found = [store.read(1, "k0") for store in stores]
    for store in stores:
        store.close()
    return found


def test_what_is_restored_is_what_was_there(made: Path, taken: Path, tmp_path: Path, expected: dict[str, Any]) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in made.rglob("*") if path.name != "lock")
    again = take_backup(StoppedSource(str(made)), str(tmp_path / "again"))
    assert before == sorted((path, path.stat().st_mtime_ns) for path in made.rglob("*") if path.name != "lock")
    assert again.bytes == read_backup(str(taken)).size
    assert healthy(taken)
    restore.restore(str(taken), str(tmp_path / "restored"))
    assert healthy(tmp_path / "restored")
    assert sorted(os.listdir(tmp_path / "restored")) == ["lock", "manifest.json", "shards"]
    assert content(tmp_path / "restored", BEFORE) == expected


def test_a_running_shard_is_copied_as_of_its_pin_whatever_is_written_meanwhile(data: Path, tmp_path: Path) -> None:
    serving = Serving(data)
    for store in serving.stores:
        put(store, b"before")
    serving.pin()
    written = 0

    def during() -> None:
        nonlocal written
        written += 1
        for store in serving.stores:
            put(store, b"after %d" % written, count=200)

    serving.during = during
    made = take_backup(serving, str(tmp_path / "backup"))
    assert written > 3
    assert [at.commit_seq for at in made.shards] == [standing.commit_seq for standing in serving.shards]
    assert all(
        store.commit_seq == at.commit_seq + written for store, at in zip(serving.stores, made.shards, strict=True)
    )
    serving.close()
    restore.restore(str(tmp_path / "backup"), str(tmp_path / "restored"))
    assert values(tmp_path / "restored") == [b"before", b"before"]
    assert values(data) == [b"after %d" % written] * 2


def test_no_checkpoint_runs_under_a_pin_and_the_log_is_given_back_after_it(data: Path) -> None:
    serving = Serving(data).pin()
    store = serving.stores[0]
    store.checkpoint_wal = 1 << 16
    for _ in range(5):
        put(store, bytes(1 << 16))
    assert (store.checkpoints, store.wal_bytes > 5 << 16) == (0, True)
    assert store.keep("backup-1", seconds=60)
    serving.end()
    put(store, b"x")
    assert (store.checkpoints, store.wal_bytes, os.path.getsize(store.path + "-wal")) == (1, 0, 0)
    put(store, bytes(1 << 17))
    assert store.checkpoints == 2
    assert os.path.getsize(store.path + "-wal") > 1 << 17  # as ever: overwritten in place
    serving.close()


@pytest.mark.parametrize("why", ["log", "time", "full"])
def test_a_pin_that_would_put_the_store_at_risk_ends_and_the_backup_is_none(
    why: str, data: Path, tmp_path: Path
) -> None:
    serving = Serving(data, log_limit=1 << 18 if why == "log" else 1 << 30).pin()
    store = serving.stores[0]
    store.checkpoint_wal = 1 << 16
    done = False

    def during() -> None:
        nonlocal done
        if done:
            return
        done = True
        if why == "time":
            store.keep("backup-1", seconds=-1)
        if why == "full":
            store.full = True
            assert not store._pinned()
            store.full = False
        put(store, bytes(1 << 20))
        assert store.checkpoints == 1

    serving.during = during
    with pytest.raises(ActordError, match="given up"):
        take_backup(serving, str(tmp_path / "backup"))
    serving.close()
    assert sorted(os.listdir(tmp_path)) == ["data"]


def test_an_image_of_another_commit_is_no_backup(data: Path, tmp_path: Path) -> None:
    serving = Serving(data).pin()
    serving.shards[1] = serving.shards[1]._replace(commit_seq=7_000)
    with pytest.raises(StoreCorrupt, match="7000"):
        take_backup(serving, str(tmp_path / "backup"))
    serving.shards[1] = Standing(1, None, 3)
    with pytest.raises(StoreCorrupt, match="frames"):
        take_backup(serving, str(tmp_path / "backup"))
    serving.close()


def test_what_an_earlier_backup_has_is_not_written_again_and_both_are_complete(data: Path, tmp_path: Path) -> None:
    serving = Serving(data)
    for store in serving.stores:
        put(store, os.urandom(4_000), count=200)
    serving.close()
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    take_backup(StoppedSource(str(data)), str(first))
    store = opened(data, 0, BEFORE)
    put(store, b"changed")
    store.close()
    made = take_backup(StoppedSource(str(data)), str(second), base=str(first))
    assert (second / "shards/0001.db").samefile(first / "shards/0001.db")
    assert not (second / SHARD).samefile(first / SHARD)
    assert 0.8 * made.bytes < made.reused < made.bytes
    whole = take_backup(StoppedSource(str(data)), str(third))
    assert (whole.bytes, whole.reused) == (made.bytes, 0)
    assert (second / SHARD).read_bytes() == (third / SHARD).read_bytes()
    shutil.rmtree(first)
    assert problems_of(str(second), read_backup(str(second))) == []


def test_a_damaged_or_foreign_base_is_refused(data: Path, taken: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copytree(taken, tmp_path / "damaged"))
    spoil(damaged / "shards/0001.db", 5_000)
    with pytest.raises(StoreCorrupt, match="actord verify"):
        take_backup(StoppedSource(str(data)), str(tmp_path / "backup"), base=str(damaged))
    other = tmp_path / "other"
    datadir.open_data_dir(str(other), shards=1, ballast=0).close()
    with pytest.raises(StoreCorrupt, match="missing"):
        take_backup(StoppedSource(str(other)), str(tmp_path / "backup"))
    opened_once = SqliteStore.open(
        datadir.shard_paths(str(other), 0)[0],
        shard=0,
        identity=datadir.read_manifest(str(other)).identity,
        slots=slot_range(0, 1),
        checkpoint_wal=1 << 20,
        page_cache=1 << 20,
    )
    opened_once.close()
    with pytest.raises(DataDirError, match="another data directory"):
        take_backup(StoppedSource(str(other)), str(tmp_path / "backup"), base=str(taken))
    assert not (tmp_path / "backup").exists()


def spoil(path: Path, offset: int) -> None:
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def no_json(folder: Path) -> None:
    (folder / "backup.json").unlink()


def changed_json(folder: Path) -> None:
    document = json.loads((folder / "backup.json").read_text())
    document["shards"][0]["commit_seq"] += 1
    (folder / "backup.json").write_text(json.dumps(document))


def newer(folder: Path) -> None:
    (folder / "backup.json").write_text('{"format": 2}')


def lacking(folder: Path) -> None:
    (folder / "shards/0001.db").unlink()


def shorter(folder: Path) -> None:
    (folder / SHARD).chmod(0o600)
    with (folder / SHARD).open("r+b") as file:
        file.truncate(BLOCK_BYTES)


@pytest.mark.parametrize(
    "damage",
    [
        no_json,
        changed_json,
        newer,
        lacking,
        shorter,
        lambda folder: spoil(folder / SHARD, 20_000),
        lambda folder: spoil(folder / "manifest.json", 60),
        lambda folder: spoil(folder / "shards/0001.db.clean", 20),
    ],
)
def test_a_half_or_damaged_backup_is_never_accepted(
    damage: Callable[[Path], None], taken: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(taken, tmp_path / "backup"))
    damage(folder)
    with contextlib.suppress(DataDirError, StoreCorrupt):
        assert problems_of(str(folder), read_backup(str(folder)))
    with pytest.raises((DataDirError, StoreCorrupt)):
        restore.restore(str(folder), str(tmp_path / "restored"))
    assert os.listdir(tmp_path / "restored") in ([], ["lock"]) if (tmp_path / "restored").exists() else True


class Killed(BaseException):
    pass


def steps(monkeypatch: pytest.MonkeyPatch, at: int, places: list[tuple[Any, str]]) -> None:
    """Have the step number ``at`` // 2 be the first that does not happen (``at`` odd) or the last one (even)."""
    seen = 0

    def armed(step: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal seen
            seen += 1
            number = seen
            if number == at // 2 and at % 2:
                raise Killed
            found = step(*args, **kwargs)
            if number == at // 2:
                raise Killed
            return found

        return wrapper

    for module, name in places:
        monkeypatch.setattr(module, name, armed(getattr(module, name)))


def test_a_backup_killed_at_any_step_is_none_or_whole_and_the_next_one_works(data: Path, tmp_path: Path) -> None:
    places = [
        (backup, "copy_file"),
        (backup, "fsync_path"),
        (backup, "problems_of"),
        (backup, "write_backup"),
        (backup_files, "replace_file"),
        (backup_files, "write_all"),
        (backup.os, "rename"),
        (backup.os, "mkdir"),
    ]
    at, none = 1, 0
    while True:
        at += 1 if LONG else 3
        folder = tmp_path / "folder" / str(at)
        folder.parent.mkdir(exist_ok=True)
        with pytest.MonkeyPatch.context() as monkeypatch:
            steps(monkeypatch, at, places)
            try:
                take_backup(StoppedSource(str(data)), str(folder))
                break
            except Killed:
                pass
        if folder.exists():
            assert problems_of(str(folder), read_backup(str(folder))) == []
        else:
            none += 1
            for left in folder.parent.glob(".*"):
                if not (left / "backup.json").exists():  # with it, all that it lacks is its name
                    with pytest.raises(DataDirError, match="no backup"):
                        restore.restore(str(left), str(tmp_path / "restored"))
            take_backup(StoppedSource(str(data)), str(folder))
            assert os.listdir(folder.parent) == [folder.name]
        shutil.rmtree(folder)
    assert none > 8


def test_a_restore_that_is_killed_at_any_step_is_not_served_and_the_next_one_works(
    taken: Path, tmp_path: Path, expected: dict[str, Any]
) -> None:
    places = [
        (restore, "fsync_path"),
        (restore, "blocks_of"),
        (restore, "_set_epoch"),
        (restore.os, "rename"),
        (restore.os, "rmdir"),
    ]
    at, refused = 1, 0
    while True:
        at += 1 if LONG else 3
        target = tmp_path / str(at)
        with pytest.MonkeyPatch.context() as monkeypatch:
            steps(monkeypatch, at, places)
            try:
                restore.restore(str(taken), str(target))
                break
            except Killed:
                pass
        if not (target / "manifest.json").exists():
            refused += 1
            with pytest.raises(DataDirError):
                datadir.open_data_dir(str(target), shards=1, ballast=0)
            restore.restore(str(taken), str(target))
            assert sorted(os.listdir(target)) == ["lock", "manifest.json", "shards"]
        assert content(target, BEFORE) == expected
        shutil.rmtree(target)
    assert refused > 5


def test_fences_of_a_restored_directory_are_above_all_of_before(data: Path, taken: Path, tmp_path: Path) -> None:
    for _ in range(3):  # served after the backup, three times
        stores = [opened(data, number, BEFORE) for number in range(BEFORE)]
        for store in stores:
            put(store, b"x")
        seen = max(store.epoch for store in stores)
        for store in stores:
            store.close()
    done = restore.restore(str(taken), str(tmp_path / "one"))
    store = opened(tmp_path / "one", 0, BEFORE)
    assert store.epoch == done.epoch + 1 > seen + 10_000
    put(store, b"x")
    latest = store.epoch
    store.close()
    again = restore.restore(str(taken), str(tmp_path / "two"), epoch=latest)
    assert again.epoch >= latest
    with pytest.raises(DataDirError, match="Epochs end"):
        restore.restore(str(taken), str(tmp_path / "three"), epoch=1 << 23)


def test_places_that_can_not_be_are_refused(data: Path, taken: Path, tmp_path: Path) -> None:
    source = StoppedSource(str(data))
    for dest, why in [
        (taken, "there already"),
        (data / "backup", "inside"),
        (tmp_path / "none" / "backup", "no folder"),
    ]:
        with pytest.raises(DataDirError, match=why):
            take_backup(source, str(dest))
    with pytest.raises(DataDirError, match="not empty"):
        restore.restore(str(taken), str(data))
    with pytest.raises(DataDirError, match="inside the backup"):
        restore.restore(str(taken), str(taken / "data"))
    with pytest.raises(DataDirError, match="no backup"):
        restore.restore(str(data), str(tmp_path / "restored"))
    with pytest.raises(DataDirError, match="is a backup"):
        datadir.open_data_dir(str(taken), shards=1, ballast=0)
    server = datadir.open_data_dir(str(tmp_path / "new"), shards=1, ballast=0)
    (tmp_path / "new" / "manifest.json").unlink()
    (tmp_path / "new" / "shards").rmdir()
    with pytest.raises(DataDirLocked):
        restore.restore(str(taken), str(tmp_path / "new"))
    server.close()


def test_tokens_are_in_a_backup(data: Path, tmp_path: Path) -> None:
    (data / "tokens.json").write_text("{}")
    take_backup(StoppedSource(str(data)), str(tmp_path / "backup"))
    restore.restore(str(tmp_path / "backup"), str(tmp_path / "restored"))
    assert (tmp_path / "restored" / "tokens.json").read_text() == "{}"
