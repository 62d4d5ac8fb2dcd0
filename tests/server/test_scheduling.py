"""A front leaves a worker its core while that worker sheds calls, and only then."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from time import monotonic

import pytest
from actord.server.scheduling import Scheduling
from actord.shards import shedding

from tests.support.front_process import PATIENCE, FrontProcess


def in_a_thread(work: Callable[[], None]) -> None:
    """The policy is a thread's: that of the tests stays what it is."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


class Asked:
    """A link whose worker asks when the test says so."""

    def __init__(self) -> None:
        self.shed = shedding.Shedding()


@pytest.fixture
def links() -> list[Asked]:
    return [Asked(), Asked()]


def test_it_lasts_until_no_worker_asks_any_more(links: list[Asked]) -> None:
    def work() -> None:
        scheduling = Scheduling(links)  # type: ignore[arg-type]
        assert os.sched_getscheduler(0) == os.SCHED_OTHER
        links[0].shed.ask(0.0)
        assert os.sched_getscheduler(0) == os.SCHED_OTHER, "everything is let in"
        links[0].shed.ask(0.4)
        assert os.sched_getscheduler(0) == os.SCHED_BATCH
        links[1].shed.ask(0.1)
        links[0].shed.ask(0.0)
        scheduling.look()
        assert os.sched_getscheduler(0) == os.SCHED_BATCH, "the other one still asks"
        links[1].shed.end()
        scheduling.look()
        assert os.sched_getscheduler(0) == os.SCHED_OTHER
        links[1].shed.ask(1.0)
        assert os.sched_getscheduler(0) == os.SCHED_BATCH

    in_a_thread(work)


def test_a_wish_that_is_not_repeated_ends(links: list[Asked], monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> None:
        scheduling = Scheduling(links)  # type: ignore[arg-type]
        monkeypatch.setattr(shedding, "monotonic", lambda: 100.0)
        links[0].shed.ask(0.4)
        scheduling.look()
        assert os.sched_getscheduler(0) == os.SCHED_BATCH
        monkeypatch.setattr(shedding, "monotonic", lambda: 100.0 + 2 * shedding.SHED_SECONDS)
        scheduling.look()
        assert os.sched_getscheduler(0) == os.SCHED_OTHER

    in_a_thread(work)


@pytest.mark.parametrize("policy", [os.SCHED_IDLE, os.SCHED_BATCH])
def test_a_policy_from_outside_is_kept(links: list[Asked], policy: int) -> None:
    def work() -> None:
        os.sched_setscheduler(0, policy, os.sched_param(0))
        scheduling = Scheduling(links)  # type: ignore[arg-type]
        links[0].shed.ask(0.4)
        assert os.sched_getscheduler(0) == policy
        links[0].shed.end()
        scheduling.look()
        assert os.sched_getscheduler(0) == policy

    in_a_thread(work)


def test_where_it_may_not_be_changed_nothing_happens(links: list[Asked], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    scheduling = Scheduling(links)  # type: ignore[arg-type]
    links[0].shed.ask(0.4)
    links[0].shed.end()
    scheduling.look()


def test_a_front_is_gentle_while_its_worker_sheds_calls_and_not_longer(front: FrontProcess) -> None:
    pid = front.process.pid
    with front.connect() as client:
        client.call("echo")
        client.answer()
        assert os.sched_getscheduler(pid) == os.SCHED_OTHER
        client.call("shed")
        assert client.answer().status == 200
        assert os.sched_getscheduler(pid) == os.SCHED_BATCH
        end = monotonic() + PATIENCE
        while os.sched_getscheduler(pid) != os.SCHED_OTHER and monotonic() < end:
            client.call("echo")
            client.answer()
    assert os.sched_getscheduler(pid) == os.SCHED_OTHER
