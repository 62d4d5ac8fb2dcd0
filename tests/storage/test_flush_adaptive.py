"""Where a sync runs: while the worker never rests in the loop, or in a thread when the disk is slow; by the kernel
otherwise."""

from __future__ import annotations

from typing import Any

import pytest
from actord.errors import StoreBroken
from actord.storage.flush import (
    AFTER_A_SLOW_SAMPLE,
    AFTER_A_STALL,
    QUICK_SECONDS,
    SAMPLE,
    STALL_SECONDS,
    AdaptiveFlusher,
)

QUICK, SLOW, STALL = QUICK_SECONDS / 2, QUICK_SECONDS * 2, STALL_SECONDS * 2


class Disk:
    """A store whose syncs take so long, and the clock that they move."""

    def __init__(self) -> None:
        self.now = 0.0
        self.took = QUICK
        self.error: BaseException | None = None

    def clock(self) -> float:
        return self.now

    def sync(self) -> None:
        self.now += self.took
        if self.error is not None:
            raise self.error


class Behind:
    """Counts what is run off the loop."""

    here = False

    def __init__(self) -> None:
        self.count = self.hurried = 0

    def submit(self, store: Any, done: Any) -> None:
        self.count += 1

    def hurry(self) -> None:
        self.hurried += 1

    def close(self) -> None:
        pass


class Bench:
    def __init__(self) -> None:
        self.disk = Disk()
        self.kernel, self.thread = Behind(), Behind()
        self.pressed = True
        self.flusher = AdaptiveFlusher(self.kernel, self.thread, lambda: self.pressed, self.disk.clock)

    def here(self) -> bool:
        """Ask for a sync: did it run before that returned, as was said?"""
        said, done, kernel, thread = self.flusher.here, [], self.kernel.count, self.thread.count
        self.flusher.submit(self.disk, done.append)  # type: ignore[arg-type]
        assert (done == [None]) is said
        elsewhere = self.kernel.count - kernel, self.thread.count - thread
        assert elsewhere == ((0, 0) if said else (0, 1) if self.pressed else (1, 0))
        return said

    def syncs(self, took: float, count: int) -> list[bool]:
        self.disk.took = took
        return [self.here() for _ in range(count)]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_syncs_of_a_quick_disk_return_before_submit_does_while_the_worker_never_rests(bench: Bench) -> None:
    assert all(bench.syncs(QUICK, 10 * SAMPLE))
    bench.pressed = False
    assert not any(bench.syncs(QUICK, 10 * SAMPLE))
    bench.pressed = True
    assert all(bench.syncs(QUICK, 10 * SAMPLE))


def test_syncs_that_ran_elsewhere_say_nothing_of_the_disk(bench: Bench) -> None:
    bench.pressed = False
    assert not any(bench.syncs(STALL, 10 * SAMPLE))
    bench.pressed = True
    assert all(bench.syncs(QUICK, 10 * SAMPLE))


def test_a_slow_disk_is_noticed_after_one_sample_and_looked_at_again_later(bench: Bench) -> None:
    here = bench.syncs(SLOW, 2 * (SAMPLE + AFTER_A_SLOW_SAMPLE))
    assert here == ([True] * SAMPLE + [False] * AFTER_A_SLOW_SAMPLE) * 2
    assert all(bench.syncs(QUICK, 10 * SAMPLE))


def test_a_stall_holds_up_the_loop_once(bench: Bench) -> None:
    assert all(bench.syncs(QUICK, 5))
    assert bench.syncs(STALL, 1 + AFTER_A_STALL) == [True] + [False] * AFTER_A_STALL
    assert all(bench.syncs(QUICK, 10 * SAMPLE))


def test_single_syncs_that_waited_for_their_core_change_nothing(bench: Bench) -> None:
    for _ in range(10):
        assert all(bench.syncs(SLOW, SAMPLE - 1))
        assert all(bench.syncs(QUICK, 1))


def test_what_a_sync_in_the_loop_raised_is_handed_over(bench: Bench) -> None:
    bench.disk.error = StoreBroken("EIO", applied="unknown")
    done: list[Any] = []
    bench.flusher.submit(bench.disk, done.append)  # type: ignore[arg-type]
    assert done == [bench.disk.error]


def test_the_kernel_is_hurried_while_the_disk_is_quick_and_waited_for_while_it_is_slow(bench: Bench) -> None:
    bench.flusher.hurry()
    assert bench.kernel.hurried == 1
    bench.syncs(SLOW, SAMPLE)
    bench.flusher.hurry()
    assert (bench.kernel.hurried, bench.thread.hurried) == (1, 0)
