"""Stops, clean and unclean, and what the next start makes of them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import apsw
import pytest
from actord.errors import DataDirError, StoreCorrupt
from actord.storage import recovery, schema

from tests.storage.stores import IDENTITY, ROOT, open_store, put


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "0000.db"


def clean(path: Path) -> Path:
    return Path(f"{path}.clean")


def wal(path: Path) -> Path:
    return Path(f"{path}-wal")


def test_a_clean_stop_leaves_a_marker_with_the_last_number_and_an_empty_log(path):
    store = open_store(path)
    put(store, {"a": b"1"})
    put(store, {"a": b"2"})
    store.close()
    assert json.loads(clean(path).read_text()) == {"identity": IDENTITY, "shard": 0, "commit_seq": 2}
    assert wal(path).stat().st_size == 0


def test_the_marker_is_gone_once_the_store_is_open(path):
    open_store(path).close()
    store = open_store(path)
    assert not clean(path).exists()
    store.abandon()
    assert not clean(path).exists()


def older(path, **marker):
    """A database of format 6, stopped cleanly."""
    store = open_store(path)
    put(store, {"a": b"1"})
    store.close()
    conn = apsw.Connection(str(path))
    conn.execute(
        "DROP TABLE redo; UPDATE meta SET value = 6, sum = ? WHERE name = 'format'", (schema.meta_sum("format", 6),)
    )
    conn.close()
    clean(path).write_text(json.dumps(json.loads(clean(path).read_text()) | marker))


def test_the_marker_is_gone_before_an_older_format_is_brought_up(path, monkeypatch):
    older(path)
    seen = []
    real = schema.upgrade
    monkeypatch.setattr(schema, "upgrade", lambda conn: (seen.append(clean(path).exists()), real(conn)))
    store = open_store(path)
    assert seen == [False]
    assert store.read(1, "a") == b"1"
    store.close()


def test_a_database_that_is_refused_is_not_brought_to_another_format(path):
    older(path, commit_seq=5)
    before = path.read_bytes()
    with pytest.raises(StoreCorrupt, match="stopped cleanly at commit 5"):
        open_store(path)
    assert path.read_bytes() == before
    assert not wal(path).exists() or not wal(path).stat().st_size


def test_an_unclean_stop_keeps_every_batch(path):
    store = open_store(path)
    for number in range(20):
        put(store, {f"k{number}": b"v"})
    store.sync()
    store.abandon()
    again = open_store(path)
    assert again.commit_seq == 20
    assert len(again.scan(1)[0]) == 20
    assert wal(path).stat().st_size == 0, "the log was folded into the database before anything was served"
    again.abandon()


def test_recovery_rewrites_the_log_before_sqlite_sees_it(path, monkeypatch):
    store = open_store(path)
    put(store, {"a": b"1"})
    store.abandon()
    seen: list[str] = []
    rewrite, connect = recovery.rewrite_in_place, recovery._open

    def rewriting(file: str) -> None:
        before = wal(path).read_bytes()
        rewrite(file)
        assert wal(path).read_bytes() == before
        seen.append("rewritten")

    def connecting(file: str) -> apsw.Connection:
        seen.append("opened")
        return connect(file)

    monkeypatch.setattr(recovery, "rewrite_in_place", rewriting)
    monkeypatch.setattr(recovery, "_open", connecting)
    open_store(path).abandon()
    assert seen == ["rewritten", "opened"]


def test_a_database_that_lost_its_tail_after_a_clean_stop_is_refused(path, tmp_path):
    store = open_store(path)
    put(store, {"a": b"1"})
    store.close()
    shutil.copy(path, tmp_path / "old.db")
    store = open_store(path)
    put(store, {"a": b"2"})
    store.close()
    shutil.copy(tmp_path / "old.db", path)
    with pytest.raises(StoreCorrupt, match="ends at commit 1, but was stopped cleanly at commit 2"):
        open_store(path)
    assert clean(path).exists(), "the evidence stays"


def test_a_shortened_log_gives_a_whole_earlier_state(path):
    store = open_store(path)
    for number in range(10):
        put(store, {"n": str(number).encode(), f"k{number}": b"v"})
    store.abandon()
    content, database = wal(path).read_bytes(), path.read_bytes()
    numbers = set()
    for length in range(0, len(content) + 1, 1024):
        path.write_bytes(database)
        wal(path).write_bytes(content[:length])
        again = open_store(path)
        seq = again.commit_seq
        numbers.add(seq)
        expected = {f"k{n}": b"v" for n in range(seq)}
        if seq:
            expected["n"] = str(seq - 1).encode()
        assert dict(again.scan(1)[0]) == expected
        again.abandon()
    assert len(numbers) > 5


def test_a_marker_of_another_store_is_refused(path):
    open_store(path).close()
    clean(path).write_text(json.dumps({"identity": "else", "shard": 0, "commit_seq": 0}))
    with pytest.raises(StoreCorrupt, match="belongs to"):
        open_store(path)


def test_a_marker_that_can_t_be_read_counts_as_an_unclean_stop(path):
    store = open_store(path)
    put(store, {"a": b"1"})
    store.close()
    clean(path).write_bytes(b"\0\0garbage")
    again = open_store(path)
    assert again.read(1, "a") == b"1"
    again.abandon()


def test_a_missing_database_is_a_loss_and_not_a_beginning(path):
    store = open_store(path)
    store.abandon()
    path.unlink()
    wal(path).unlink()
    with pytest.raises(StoreCorrupt, match="missing"):
        open_store(path)


def test_a_creation_that_was_cut_off_is_begun_anew(path):
    Path(f"{path}.new").write_bytes(b"half a database")
    store = open_store(path)
    put(store, {"a": b"1"})
    store.close()
    assert not Path(f"{path}.new").exists()


def test_files_of_two_directories_are_not_mixed(path):
    open_store(path).close()
    for options in ({"identity": "other"}, {"shard": 1}):
        with pytest.raises(StoreCorrupt):
            open_store(path, **options)
    clean(path).unlink()
    with pytest.raises(StoreCorrupt, match="mixed"):
        open_store(path, identity="other")


def test_a_newer_format_is_refused_with_what_to_do(path):
    store = open_store(path)
    store._conn.execute("UPDATE meta SET value = value + 1 WHERE name = 'format'")
    store.close()
    with pytest.raises(DataDirError, match="newer actord"):
        open_store(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"SQLite format 3\0" + bytes(5000), bytes(8192)])
def test_a_file_that_is_no_database_of_ours_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(StoreCorrupt):
        open_store(path)
    assert path.read_bytes() == content, "and left as it was"


def test_a_damaged_page_is_noticed_after_an_unclean_stop(path):
    store = open_store(path)
    put(store, {f"k{n}": bytes(500) for n in range(200)})
    store.close()
    clean(path).unlink()
    content = bytearray(path.read_bytes())
    content[-4096:] = os.urandom(4096)
    path.write_bytes(content)
    with pytest.raises(StoreCorrupt):
        open_store(path)


def test_symbolic_links_are_refused(path, tmp_path):
    open_store(path).close()
    path.rename(tmp_path / "elsewhere.db")
    path.symlink_to(tmp_path / "elsewhere.db")
    with pytest.raises(StoreCorrupt, match="symbolic link"):
        open_store(path)


HOLD = """
import sys
from tests.storage.stores import open_store, put
store = open_store(sys.argv[1])
put(store, {"a": b"1"})
store.sync()
print("open", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"open\n"
    yield process
    process.kill()
    process.wait()


def test_no_second_process_opens_a_store_that_is_held(path, holder):
    before = path.read_bytes()
    with pytest.raises(DataDirError, match=f"pid {holder.pid}"):
        open_store(path)
    assert path.read_bytes() == before


def test_a_successor_waits_for_a_dying_predecessor(path, holder):
    holder.send_signal(signal.SIGSTOP)  # it can't let go by itself
    timer = threading.Timer(0.3, holder.kill)
    timer.start()
    store = open_store(path, lock_wait=30)
    assert store.read(1, "a") == b"1"
    store.abandon()
    timer.join()


def test_the_lock_does_not_pass_to_children(path):
    store = open_store(path)
    # Once it runs: exec closes the descriptors a moment after it has let its parent go on.
    child = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        close_fds=False,
    )
    try:
        assert child.stdout.readline() == b"\n"
        store.close()
        open_store(path).close()
    finally:
        child.communicate(b"\n")
