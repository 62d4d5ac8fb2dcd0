"""Several programs of one server: their front doors by path, their actors shared by type, under any binding."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from actord.settings import ActorBinding, App, MountedProgram
from actord.shards.registry import ProgramError, load_program

PROGRAMS = Path(__file__).parent / "programs"
PROJECT = """
name = "bank"
main = "bank.py"

[[actors]]
binding = "ACCOUNT"
type = "Account"

[[actors]]
binding = "SAVINGS"
type = "Account"

[[programs]]
main = "reports.py"
mount = "/reports"

[[programs.actors]]
binding = "BANK_ACCOUNT"
type = "Account"

[[programs.actors]]
binding = "VISITS"
type = "Visits"
"""


@pytest.fixture
def server(tmp_path, serve):
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("bank.py", "reports.py"):
        shutil.copy(PROGRAMS / name, folder)
    (folder / "actord.toml").write_text(PROJECT)
    return serve(folder)


def test_bindings_and_programs_that_name_one_type_reach_the_same_instances(server):
    assert server.request("GET", "/deposit/alice").json() == 1
    assert server.request("GET", "/savings/deposit/alice").json() == 2
    report = server.request("GET", "/reports/today?x=1").json()
    assert report == {"deposit": 12, "visits": 1, "root_path": "/reports", "path": "/reports/today"}
    assert server.request("GET", "/reports").json()["deposit"] == 22
    assert server.result("Account", "alice", "deposit", 0) == 22
    assert server.result("Visits", "all", "count") == 3
    for path in ("/fetch/bob", "/savings/fetch/bob"):
        assert server.request("GET", path).json() == {"account": "bob"}
    assert server.request("GET", "/reportsandmore/alice").json() == 23  # below no mount: the main program's


def app(*programs: MountedProgram) -> App:
    return App(root=str(PROGRAMS), main="bank.py", programs=list(programs))


@pytest.mark.parametrize(
    ("programs", "words"),
    [
        ([MountedProgram(main="reports.py")], "give it a mount"),
        ([MountedProgram(main="timers.py", mount="/t")], "neither `fetch` nor `app`"),
        (
            [MountedProgram(main="reports.py", mount="/r", actors=[ActorBinding(binding="X", type="Nobody")])],
            "type 'Nobody'",
        ),
        (
            [MountedProgram(main="reports.py", mount="/r", actors=[ActorBinding(binding="ACCOUNT", type="Visits")])],
            "Two programs have the binding 'ACCOUNT', for Account and for Visits",
        ),
    ],
)
def test_programs_that_do_not_fit_together_are_refused_with_what_to_do(programs, words):
    with pytest.raises(ProgramError) as refusal:
        load_program(app(*programs))
    assert words in str(refusal.value)


def test_two_classes_of_one_name_are_refused(tmp_path):
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text("from actord import StatefulActor\nclass Thing(StatefulActor): pass\n")
    with pytest.raises(ProgramError, match="Two programs have a class Thing"):
        load_program(App(root=str(tmp_path), main="one.py", programs=[MountedProgram(main="two.py")]))
