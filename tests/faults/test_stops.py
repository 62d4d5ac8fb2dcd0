"""SIGSTOP of each kind of process, and kills by lot: see ``kills``. The long version is ``make proof``."""

from __future__ import annotations

from tests.faults import kills


def test_what_is_stopped_goes_on_or_is_replaced_and_no_answer_is_wrong(tmp_path):
    some = ["worker stopped", "supervisor stopped", "worker stopped for good"]
    outcome = kills.run(tmp_path, some, stop_seconds=0.4)
    assert outcome.wrong == []
    assert outcome.stops == len(some)


def test_a_worker_with_a_log_of_8_mib_is_back_soon(tmp_path):
    taken = kills.recovery_times(tmp_path, 8 * 1024 * 1024, 1)
    assert len(taken) == 1
