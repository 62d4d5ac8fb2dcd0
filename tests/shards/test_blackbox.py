"""What a supervisor reads of a worker that says nothing any more."""

from __future__ import annotations

import mmap
from collections.abc import Iterator

import pytest
from actord.shards.blackbox import BOX_BYTES, COMMITTING, NOTHING, BlackBox, label_of, mark


@pytest.fixture
def box() -> Iterator[BlackBox]:
    box = BlackBox("test")
    yield box
    box.close()


def test_the_turn_that_holds_a_worker_is_named_until_it_has_ended(box: BlackBox) -> None:
    worker = mmap.mmap(box.fd, BOX_BYTES)
    assert box.read() == (None, "")
    mark(worker, 0, b"deposit", label_of("Account", "a/b"))
    assert box.read() == (("Account", "deposit", "a/b"), "")
    assert not box.commits
    worker[0] = COMMITTING
    assert box.read() == (None, "")
    assert box.commits
    worker[0] = NOTHING
    assert box.read() == (None, "")
    assert not box.commits
