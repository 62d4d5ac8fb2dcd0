"""Power cuts under turns that mix SQL, keys and the alarm: wholly there or wholly absent, and never lost once said."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator

import pytest
from actord.codec import decode
from actord.errors import ActordError
from actord.shards.slots import SLOTS, slot_of
from actord.shards.sql_database import Database
from actord.storage.datadir import open_data_dir
from actord.storage.sqlite import SqliteStore

from tests.faults import powercut, worker_workload
from tests.faults.test_powercut_worker import PER_LEDGER, STATES, Audit, replay
from tests.system.programs.sql_ledger import FIRST_ALARM

pytestmark = pytest.mark.skipif(bool(powercut.unavailable()), reason=powercut.unavailable())

WORKLOAD = os.path.join(os.path.dirname(__file__), "sql_workload.py")


@pytest.fixture
def scratch() -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir=powercut.scratch_parent()) as directory:
        yield directory


class SqlAudit(Audit):
    """What a state has to hold: in each ledger rows, count, sum and alarm of one and the same number of deposits."""

    def check(self, directory: str, state: powercut.State) -> str | None:
        promised = dict(self.acknowledged[: state.ack_count])
        path = os.path.join(directory, "shards", "0000.db")
        if not os.path.exists(path) and not promised:
            return None  # before the shard was made
        try:
            store = SqliteStore.open(
                path,
                shard=0,
                identity=self.identity,
                slots=range(SLOTS),
                checkpoint_wal=worker_workload.CHECKPOINT_BYTES,
                page_cache=1024 * 1024,
                lock_wait=0,
            )
        except ActordError as error:
            return f"can't be opened: {error}"
        try:
            self.commits.add(store.commit_seq)
            found: dict[str, int] = {}
            for name in worker_workload.LEDGERS:
                actor = store.find_actor(slot_of("Ledger", name), "Ledger", name)
                if actor is None:
                    continue
                keys = {key: decode(raw) for key, raw in store.scan(actor)[0]}
                rows = sql_rows(store, actor)
                alarm = store.read_alarm(actor)
                count = keys.get("count", 0)
                if sorted(number for _, number, _ in rows) != list(range(1, count + 1)):
                    return f"{name} is torn: {count} counted, {len(rows)} rows"
                if keys.get("total", 0) != sum(amount for _, _, amount in rows):
                    return f"{name} is torn: its sum does not fit its rows"
                if (alarm and alarm.due) != (FIRST_ALARM + count) * 1000:
                    return f"{name} is torn: {count} counted, the alarm is {alarm}"
                found.update((mark, number) for mark, number, _ in rows)
        except ActordError as error:
            return f"can't be read: {error}"
        finally:
            store.abandon()
        lost = [mark for mark, number in promised.items() if found.get(mark) != number]
        return f"{len(lost)} acknowledged deposits are lost, as {lost[0]}" if lost else None


def sql_rows(store: SqliteStore, actor: int) -> list:
    """The rows of an actor's database as the store holds it, which SQLite finds sound."""
    database = Database(lambda number: store.read_page(actor, number), store.page_count(actor), lambda: False)
    try:
        assert database.cursor().execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return database.cursor().execute("SELECT mark, number, amount FROM deposit").fetchall()
    finally:
        database.close()


def record(tmp_path, variant: str = "") -> tuple[powercut.Log, SqlAudit]:
    data, runtime = tmp_path / "data", tmp_path / "run"
    runtime.mkdir()
    directory = open_data_dir(str(data), shards=1, ballast=0)
    directory.close()
    argv = [sys.executable, WORKLOAD, str(data), str(runtime), *([variant] if variant else [])]
    log = powercut.record(argv, str(data))
    assert log.returncode == 0
    audit = SqlAudit(log, directory.identity)
    assert len(audit.acknowledged) == PER_LEDGER * len(worker_workload.LEDGERS)
    return log, audit


def test_no_power_cut_tears_a_turn_of_sql_keys_and_alarm_nor_takes_back_its_reply(tmp_path, scratch):
    log, audit = record(tmp_path)
    total, wrong = replay(log, audit, scratch, STATES)
    assert wrong == []
    assert total > 100
    assert len(audit.commits) > 5, "the states have to differ"


@pytest.mark.parametrize("bug", ["no-sync", "reply-first"])
def test_the_replay_catches_a_reply_before_its_sync(bug, tmp_path, scratch):
    log, audit = record(tmp_path, bug)
    total, wrong = replay(log, audit, scratch, 60, kinds=("dropped", "torn"))
    lost = [line for line in wrong if "acknowledged deposits are lost" in line]
    assert lost, (total, wrong)
