"""A real power cut of a real file system under a server: see ``ext4``."""

from __future__ import annotations

import pytest

from tests.faults import ext4


def test_what_was_acknowledged_survives_the_shutdown_of_ext4_without_a_flush():
    if reason := ext4.unavailable():
        pytest.skip(reason)
    count, history, wrong = ext4.rounds(1, 150)
    assert wrong == []
    assert count == 1
    assert history.count >= 150
