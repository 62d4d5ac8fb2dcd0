"""``actord migrate``: every actor's upgrades, on the data or on a copy, and what it says of those that fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.command import actord
from tests.support.server import Server

FIRST = """
from actord import StatefulActor

class Account(StatefulActor):
    async def deposit(self, euros: int) -> None:
        await self.ctx.storage.put("euros", euros)
"""
SECOND = """
from datetime import timedelta
from actord import ActorError, StatefulActor, upgrade

class Ledger(StatefulActor):
    type = "Account"
    version = 2

    @upgrade(2)
    async def to_cents(self) -> None:
        euros = await self.ctx.storage.get("euros")
        if euros < 0:
            raise ActorError(f"{euros} euros can't be")
        await self.ctx.storage.put("cents", 100 * euros)
        await self.ctx.storage.delete("euros")
        await self.ctx.set_alarm(timedelta(seconds=0))

    async def alarm(self, info) -> None:
        await self.ctx.storage.put("rang", True)

    async def show(self) -> dict:
        return dict(await self.ctx.storage.list())
"""
NAMES = 40


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory of the first program; two of its accounts can't be upgraded."""
    folder = tmp_path_factory.mktemp("filled")
    (folder / "first.py").write_text(FIRST)
    (folder / "second.py").write_text(SECOND)
    with Server(folder / "first.py", folder / "data") as server:
        for n in range(NAMES):
            server.result("Account", f"a{n}", "deposit", n if n > 1 else -1 - n)
        assert actord("migrate", folder / "second.py", "--data-dir", folder / "data").returncode == 75
    return folder


def test_what_would_fail_is_told_beforehand_and_the_data_are_as_they_were(filled: Path) -> None:
    before = {path: path.read_bytes() for path in (filled / "data" / "shards").glob("*.db")}
    done = actord("migrate", "--check", filled / "second.py", "--data-dir", filled / "data", "--json")
    assert done.returncode == 1, done.stderr
    told = json.loads(done.stdout)
    assert (told["checked"], told["upgraded"], told["failed"]) == (True, {"Account": NAMES - 2}, {"Account": 2})
    assert {(entry["name"], entry["why"]) for entry in told["failures"]} == {
        ("a0", "-1 euros can't be"),
        ("a1", "-2 euros can't be"),
    }
    assert {path: path.read_bytes() for path in before} == before
    assert {path.name for path in filled.iterdir()} - {"__pycache__"} == {"data", "first.py", "second.py"}


def test_all_at_once_and_a_server_finds_them_so(filled: Path) -> None:
    program = filled / "second.py"
    done = actord("migrate", program, "--data-dir", filled / "data")
    assert done.returncode == 1
    assert f"Account: {NAMES - 2} upgraded" in done.stdout
    assert "Account/a0: -1 euros can't be" in done.stdout
    program.write_text(SECOND.replace("if euros < 0", "if euros < -1"))
    assert "Account: 1 upgraded" in actord("migrate", program, "--data-dir", filled / "data").stdout
    program.write_text(SECOND.replace("if euros < 0", "if euros < -2"))
    with Server(program, filled / "data") as server:
        assert server.result("Account", "a1", "show")["cents"] == -200  # by its first call
        assert server.result("Account", f"a{NAMES - 1}", "show")["cents"] == 100 * (NAMES - 1)
    done = actord("migrate", program, "--data-dir", filled / "data")
    assert (done.returncode, done.stdout.splitlines()[0][:13]) == (0, "nothing to do")
    older = actord("migrate", filled / "first.py", "--data-dir", filled / "data")
    assert older.returncode == 0


@pytest.mark.parametrize("what", ["no program", "no data"])
def test_what_can_not_be_done_is_one_clear_line(what: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import nothing_of_that_name" if what == "no program" else SECOND)
    done = actord("migrate", program, "--data-dir", tmp_path / "data")
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith("actord: ")
