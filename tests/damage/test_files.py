"""Files that are cut off, swapped, missing, or of another format: refused, and explained by the doctor."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from pathlib import Path
from typing import Any

import apsw
import pytest
from actord.errors import DataDirLocked
from actord.storage import schema, wal
from actord.storage.api import Batch
from actord.storage.findings import Report

from tests.damage.directories import BALLAST_BYTES, contents, copy_of, diagnose, files_of, make, open_shard
from tests.damage.flips import kind_of


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    made = {"clean": folder / "clean", "killed": folder / "killed"}
    for state, directory in made.items():
        make(directory, clean=state == "clean")
    return made


@pytest.fixture(params=["clean", "killed"])
def data(request: pytest.FixtureRequest, sources: dict[str, Path], tmp_path: Path) -> Path:
    return copy_of(sources[request.param], tmp_path / "data")


def damage(report: Report) -> str:
    return "\n".join(f"{found.file}: {found.what}" for found in report.findings if found.level == "damage")


def test_a_sound_directory_is_healthy_and_is_left_as_it_was(data: Path) -> None:
    def state() -> dict[str, Any]:
        return {
            str(path.relative_to(data)): (path.read_bytes(), path.stat().st_mtime_ns)
            for path in sorted(data.rglob("*"))
            if path.is_file()
        }

    before = state()
    report = diagnose(data, deep=True)
    assert damage(report) == ""
    assert (report.shards, report.actors) == (2, 48)
    assert report.rows > 450
    assert state() == before


def test_a_file_that_is_cut_off_anywhere_is_noticed_or_reads_as_before(data: Path, tmp_path: Path) -> None:
    before = contents(copy_of(data, tmp_path / "read"))
    looked_at = 0
    for name in files_of(data):
        size = (data / name).stat().st_size
        for length in sorted({0, 1, size // 3, size // 2, size - 4096, size - 1}):
            if not 0 <= length < size:
                continue
            target = copy_of(data, tmp_path / "cut")
            os.truncate(target / name, length)
            told = diagnose(target).damaged
            after = contents(target)
            looked_at += 1
            # A log without its end is what a crash leaves: whole commits are missing, and nothing can know it.
            earlier = kind_of(name) == "log" and _is_earlier(before, after)
            assert told or after == before or "refused" in repr(after) or earlier, (name, length)
    assert looked_at > 20


def _is_earlier(before: dict[str, Any], after: dict[str, Any]) -> bool:
    return all(after[key] == before[key] or after[key]["commit_seq"] < before[key]["commit_seq"] for key in after)


def test_swapped_shard_files_are_found_and_refused(data: Path) -> None:
    shards = data / "shards"
    for end in (".db", ".db-wal"):
        one, two = shards / f"0000{end}", shards / f"0001{end}"
        if one.exists():
            one.rename(shards / "x")
            two.rename(one)
            (shards / "x").rename(two)
    told = damage(diagnose(data))
    assert "is shard 1 of data directory" in told
    assert "is shard 0 of data directory" in told
    after = contents(data)
    assert after["shard 0"] == after["shard 1"] == "refused: StoreCorrupt"


def test_a_shard_of_another_directory_is_found_and_refused(sources: dict[str, Path], tmp_path: Path) -> None:
    data, other = copy_of(sources["clean"], tmp_path / "data"), tmp_path / "other"
    make(other, clean=True)
    shutil.copy(other / "shards" / "0001.db", data / "shards" / "0001.db")
    assert "Files of two data directories were mixed" in damage(diagnose(data))
    after = contents(data)
    assert after["shard 1"] == "refused: StoreCorrupt"
    assert after["shard 0"]["commit_seq"] == 25


def test_the_log_of_another_time_is_found(sources: dict[str, Path], tmp_path: Path) -> None:
    """A database that went on, beside a log from before."""
    data = copy_of(sources["killed"], tmp_path / "data")
    log = (data / "shards" / "0000.db-wal").read_bytes()
    contents(data)  # recovers
    (data / "shards" / "0000.db-wal").write_bytes(log)
    with apsw.Connection(str(data / "shards" / "0001.db")) as conn:
        conn.execute("PRAGMA locking_mode = EXCLUSIVE")
    conn.close()
    assert damage(diagnose(data)) == "", "the same commits twice are the same"
    (data / "shards" / "0000.db-wal").unlink()
    path = data / "shards" / "0000.db"
    conn = apsw.Connection(str(path))
    conn.execute(
        "UPDATE meta SET value = ?, sum = ? WHERE name = 'commit_seq'", (99, schema.meta_sum("commit_seq", 99))
    )
    conn.close()
    (data / "shards" / "0000.db-wal").write_bytes(log)
    assert "do not belong together" in damage(diagnose(data))


@pytest.mark.parametrize("frame", [5, 200])
def test_a_bit_in_a_long_last_commit_of_the_log_is_told_however_far_behind(
    sources: dict[str, Path], tmp_path: Path, frame: int
) -> None:
    data = copy_of(sources["clean"], tmp_path / "data")
    store = open_shard(data, 0)
    for number in range(2):
        batch = Batch(store.commit_seq + 1)
        batch.kv[1] = {f"long-{number}-{n}": b"v" * 1500 for n in range(600)}
        store.write(batch)
        store.sync()
    store.abandon()
    log = data / "shards" / "0000.db-wal"
    frames = wal.read_log(str(log), schema.PAGE_BYTES)
    last = [at for at in range(1, frames.frames) if _size_after(log, at)][-1]
    assert frames.commits == 2
    assert frames.frames > last + frame
    assert damage(diagnose(data)) == ""
    content = bytearray(log.read_bytes())
    content[_at(last + frame) + wal.FRAME_HEADER_BYTES + 999] ^= 4
    log.write_bytes(content)
    assert f"frame {last + frame} is good but for one bit" in damage(diagnose(data))


def _at(frame: int) -> int:
    return wal.HEADER_BYTES + (frame - 1) * (wal.FRAME_HEADER_BYTES + schema.PAGE_BYTES)


def _size_after(log: Path, frame: int) -> int:
    return int.from_bytes(log.read_bytes()[_at(frame) + 4 : _at(frame) + 8], "big")


def test_an_older_row_of_redo_that_rotted_is_told_and_takes_nothing_down(data: Path) -> None:
    with contextlib.closing(apsw.Connection(str(data / "shards" / "0000.db"))) as conn:
        last = conn.execute("SELECT max(slot) FROM redo").get
        conn.execute("UPDATE redo SET sum = sum + 1 WHERE slot = ?", (last,))
    assert "1 fail their checksum" in damage(diagnose(data))
    assert "refused" not in str(contents(data)["shard 0"])[:20]


def test_a_newer_shard_is_refused_with_what_to_do(data: Path) -> None:
    _set_format(data, schema.FORMAT + 1)
    assert "written by a newer actord" in damage(diagnose(data))
    assert contents(data)["shard 0"] == "refused: DataDirError"


def test_a_newer_directory_is_refused_with_what_to_do(data: Path) -> None:
    manifest = data / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 2'))
    assert "written by a newer actord" in damage(diagnose(data))
    assert contents(data) == {"refused": "DataDirError"}


def test_an_older_shard_is_a_note_and_is_brought_forward(sources: dict[str, Path], tmp_path: Path) -> None:
    data = copy_of(sources["clean"], tmp_path / "data")
    path = data / "shards" / "0000.db"
    before = contents(copy_of(data, tmp_path / "read"))
    conn = apsw.Connection(str(path))
    rows = conn.execute("SELECT name, value FROM meta").fetchall()
    with conn:
        conn.execute("DROP TABLE meta; CREATE TABLE meta (name TEXT NOT NULL PRIMARY KEY, value) WITHOUT ROWID")
        conn.executemany("INSERT INTO meta VALUES (?, ?)", [(n, 3 if n == "format" else v) for n, v in rows])
    conn.close()
    report = diagnose(data)
    assert damage(report) == ""
    assert any("older format 3" in found.what for found in report.findings)
    assert contents(data) == before
    conn = apsw.Connection(str(path))
    assert conn.execute("SELECT value FROM meta WHERE name = 'format'").get == schema.FORMAT
    conn.close()
    assert damage(diagnose(data)) == ""


def test_rows_that_belong_to_nobody_are_found(data: Path) -> None:
    for path in _databases(data):
        conn = apsw.Connection(str(path))
        conn.execute("DELETE FROM actor WHERE id = 9")
        conn.close()
    told = damage(diagnose(data))
    assert "values of actor 9, which has no entry" in told
    assert "SQL pages of actor 9, which has no entry" in told


def test_an_event_that_is_missing_and_one_that_nobody_counts_are_found(data: Path) -> None:
    conn = apsw.Connection(str(_databases(data)[0]))
    conn.execute("DELETE FROM event WHERE actor = 7 AND seq = 4; DELETE FROM event_log WHERE actor = 10")
    conn.close()
    told = damage(diagnose(data))
    assert "has 6 events from 2 to 8; its log says that they are all from 2 to 8" in told
    assert "There are events of actor 10" in told


def test_an_actor_that_its_index_has_lost_is_found(sources: dict[str, Path], tmp_path: Path) -> None:
    """The store would take it for a new one: no checksum can show a row that is not found."""
    data = copy_of(sources["clean"], tmp_path / "data")
    path = data / "shards" / "0000.db"
    content = bytearray(path.read_bytes())
    needle = b"Account" + "näme-".encode()
    places = [at for at in range(len(content) - len(needle)) if content[at : at + len(needle)] == needle]
    noticed = 0
    for at in places:
        changed = bytearray(content)
        changed[at + len(needle)] ^= 1
        path.write_bytes(changed)
        noticed += diagnose(data).damaged
    assert len(places) > 40, "rows and index entries"
    assert noticed == len(places)


def test_a_damaged_sql_database_of_an_actor_is_found_on_request(sources: dict[str, Path], tmp_path: Path) -> None:
    """Every page has its checksum, and they don't fit each other: what a bug of ours would leave."""
    from actord.storage import pages

    data = copy_of(sources["clean"], tmp_path / "data")
    conn = apsw.Connection(str(data / "shards" / "0000.db"))
    first, second = 1 << pages.NUMBER_BITS | 2, 1 << pages.NUMBER_BITS | 3
    [(content,)] = conn.execute("SELECT data FROM page WHERE id = ?", (second,)).fetchall()
    conn.execute("UPDATE page SET data = ?, sum = ? WHERE id = ?", (content, pages.page_sum(first, content), first))
    conn.close()
    assert not diagnose(data).damaged
    assert "The SQL database of actor 1" in damage(diagnose(data, deep=True))


def test_a_missing_database_is_a_loss(data: Path) -> None:
    (data / "shards" / "0001.db").unlink()
    assert "shards/0001.db: It is missing" in damage(diagnose(data))


def test_leftovers_a_released_ballast_and_strangers_are_notes(data: Path) -> None:
    (data / "shards" / "0000.db.new").write_bytes(b"half")
    (data / "manifest.json.tmp").write_bytes(b"half")
    os.truncate(data / "shards" / "0000.ballast", 0)
    report = diagnose(data)
    assert damage(report) == ""
    notes = {found.file for found in report.findings if found.level == "note"}
    assert notes >= {"shards/0000.db.new", "manifest.json.tmp", "shards/0000.ballast"}
    assert BALLAST_BYTES > 0


def test_a_directory_without_manifest_is_examined_shard_by_shard(data: Path) -> None:
    (data / "manifest.json").unlink()
    report = diagnose(data)
    assert {found.file for found in report.findings if found.level == "damage"} == {"manifest.json"}
    assert report.actors == 48


def test_a_directory_in_use_is_not_read(data: Path) -> None:
    with open(data / "lock", "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(DataDirLocked, match="Stop it first"):
            diagnose(data)


def _databases(data: Path) -> list[Path]:
    return [data / "shards" / "0000.db", data / "shards" / "0001.db"]


def _set_format(data: Path, value: int) -> None:
    for path in _databases(data):
        conn = apsw.Connection(str(path))
        conn.execute("UPDATE meta SET value = ? WHERE name = 'format'", (value,))
        conn.close()
