"""A short run of every harness, by lot and, where atheris is installed, guided; and every input that ever broke one.

``ACTORD_TEST_FUZZ_SECONDS`` makes the runs longer.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import pytest

from tests.fuzz import engine
from tests.fuzz.__main__ import NAMES
from tests.fuzz.targets import TARGETS
from tests.support.lots import LONG

SECONDS = float(os.environ.get("ACTORD_TEST_FUZZ_SECONDS", "0"))
INPUTS = None if SECONDS else 1_500
SEED = int(os.environ.get("ACTORD_TEST_SEED", "20260101"))
KEPT = sorted(path for path in engine.REGRESSIONS.glob("*/*") if path.is_file())


def test_the_command_knows_every_target() -> None:
    assert set(NAMES) == set(TARGETS)


@pytest.mark.parametrize("name", NAMES)
def test_a_mutated_input_breaks_no_promise(name: str) -> None:
    if not engine.has_atheris():
        warnings.warn("atheris is not installed: inputs by lot only, without coverage", stacklevel=1)
    done = engine.run_by_lot(name, SECONDS or 3.0, SEED, INPUTS)
    assert done > 100, "it hardly ran"


@pytest.mark.parametrize("name", NAMES if LONG or SECONDS else ("http", "frames", "codec"))
def test_a_run_guided_by_coverage_finds_no_broken_promise(name: str) -> None:
    if not engine.has_atheris():
        pytest.skip("atheris is not installed: it has no wheel for this system")
    command = [sys.executable, "-m", "tests.fuzz", name, "--engine", "atheris", "--seed", str(SEED)]
    done = subprocess.run([*command, "--seconds", str(SECONDS or 1)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.parametrize("path", KEPT, ids=lambda path: f"{path.parent.name}/{path.name[:12]}")
def test_an_input_that_once_broke_a_promise_does_not_any_more(path: object) -> None:
    TARGETS[path.parent.name].run(path.read_bytes())


@pytest.mark.parametrize("name", NAMES)
def test_every_seed_keeps_the_promises(name: str) -> None:
    for data in TARGETS[name].seeds:
        TARGETS[name].run(data)


def test_a_broken_promise_is_found_and_its_input_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    """The engine itself, on a planted bug: a parser that takes a lone CR for a space."""
    monkeypatch.setattr(engine, "REGRESSIONS", tmp_path)

    def planted(data: bytes) -> None:
        assert not (b"\r" in data.replace(b"\r\n", b"") and data.startswith(b"GET"))

    monkeypatch.setitem(TARGETS, "http", TARGETS["http"]._replace(run=planted))
    with pytest.raises(AssertionError) as found:
        engine.run_by_lot("http", 60, SEED)
    (kept,) = (tmp_path / "http").iterdir()
    with pytest.raises(AssertionError):
        planted(kept.read_bytes())
    assert kept.name in found.value.__notes__[0]
