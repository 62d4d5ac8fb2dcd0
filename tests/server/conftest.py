from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.front_process import FrontProcess


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontProcess]:
    """A front with one fake worker and no front door, shared by the tests of a module."""
    with FrontProcess(tmp_path_factory.mktemp("front")) as process:
        yield process


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontProcess]:
    """The same with a front door."""
    with FrontProcess(tmp_path_factory.mktemp("door"), front_door=True) as process:
        yield process
