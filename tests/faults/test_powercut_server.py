"""Power cuts over a whole running server: see ``server_powercut``. The long version is ``make proof``."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import pytest

from tests.faults import powercut, server_powercut

pytestmark = pytest.mark.skipif(bool(powercut.unavailable()), reason=powercut.unavailable())

SEED = 4


@pytest.fixture
def scratch() -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir=powercut.scratch_parent()) as directory:
        yield directory


def test_no_power_cut_takes_back_what_a_server_of_two_workers_acknowledged_or_served(tmp_path, scratch):
    """Kills, evictions, checkpoints, and a sync that fails in each life of a worker: fail-stop, restart, serve."""
    log, audit = server_powercut.record(
        tmp_path, SEED, phase=16, inject=["fdatasync:error=EIO:when=12"], settings={"storage.flush": "thread"}
    )
    assert server_powercut.failed_syncs(log) > 0
    assert audit.deposits >= 40
    total, wrong = server_powercut.replay(log, audit, SEED, scratch, 120)
    assert wrong == []
    assert total > 120
    assert {shard for shard, _ in audit.commits} == {0, 1}
    assert len(audit.commits) > 20, "the states have to differ"
    # Planted in the same trace: no syncs, replies before their sync, a promise that nobody kept.
    bugs = (server_powercut.never_synced(log), 40), (server_powercut.replied_too_early(log, audit), 150)
    for bug, most in bugs:
        total, wrong = server_powercut.replay(bug, audit, SEED, scratch, most, kinds=("dropped", "torn"))
        assert wrong, f"a planted bug was not caught in {total} states"
    audit.promises.insert(0, ("ledger-0", "planted", 1))
    _, wrong = server_powercut.replay(log, audit, SEED, scratch, 20)
    assert any("as planted" in line for line in wrong)
