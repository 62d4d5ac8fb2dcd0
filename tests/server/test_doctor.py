"""``actord doctor`` on the machine: every judge before machines of all kinds, and the command on this one."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.testing
from actord.server import machine
from actord.server.cli import app
from actord.server.commands import doctor
from actord.storage import datadir, doctor_disk
from actord.storage.doctor_disk import Disk, judge_ballast, judge_kind, judge_room, judge_sync
from actord.storage.findings import Check

GIB = 1 << 30
BACK, THROUGH = Disk("ext4", "/dev/sda", cache="write back"), Disk("ext4", "/dev/sda", cache="write through")

JUDGED: list[tuple[Callable[..., Check], tuple[Any, ...], dict[str, Any], str, str]] = [
    (judge_kind, (Disk("ext4", "/dev/sda"),), {}, "ok", "ext4 on /dev/sda"),
    (judge_kind, (Disk("nfs4", "box:/srv"),), {}, "problem", "network file system"),
    (judge_kind, (Disk("ext4", "/dev/sda", frozenset({"rw", "nobarrier"})),), {}, "problem", "without barriers"),
    (judge_kind, (Disk("ext4", "/dev/sda", frozenset({"rw", "barrier=0"})),), {}, "problem", "without barriers"),
    (judge_kind, (Disk("xfs", "/dev/sda", frozenset({"ro"})),), {}, "problem", "only be read"),
    (judge_kind, (Disk("tmpfs", "tmpfs"),), {}, "note", "memory"),
    (judge_kind, (Disk("overlay", "overlay"),), {}, "note", "layer of a container"),
    (judge_kind, (Disk("fuse.something", "x"),), {}, "note", "not made for databases"),
    (judge_kind, (Disk(""),), {}, "note", "can't be found out"),
    (
        judge_sync,
        ([0.00031, 0.0003, 0.0042], BACK),
        {},
        "ok",
        "waits about 0.31 ms for the disk (the longest of 3 took",
    ),
    (judge_sync, ([0.00031, 0.0003, 0.0042], BACK), {}, "ok", "up to 3,200 times a second"),
    (judge_sync, ([0.000005] * 9, BACK), {}, "note", "quicker than a disk that keeps its word"),
    (judge_sync, ([0.000005] * 9, Disk("ext4")), {}, "note", "0.005 ms"),
    (judge_sync, ([0.000005] * 9, THROUGH), {}, "ok", "0.005 ms"),
    (judge_sync, ([0.000001] * 9, Disk("tmpfs")), {}, "ok", "nothing that lasts"),
    (judge_sync, ([0.12, 0.12, 1.5], BACK), {}, "note", "120 ms for the disk (the longest of 3 took 1,500 ms)"),
    (judge_room, (200 * GIB, 400 * GIB, 10**6, 10**7), {}, "ok", "200 GiB free of 400 GiB"),
    (judge_room, (10 * GIB, 400 * GIB, 10**6, 10**7), {}, "note", "10.0 GiB free"),
    (judge_room, (GIB // 2, 2 * GIB, 10**6, 10**7), {}, "note", "512 MiB free"),
    (judge_room, (GIB // 1000, 2 * GIB, 10**6, 10**7), {}, "problem", "1.0 MiB free"),
    (judge_room, (200 * GIB, 400 * GIB, 9, 10**7), {}, "problem", "9 more files"),
    (judge_room, (200 * GIB, 400 * GIB, 0, 0), {}, "ok", "200 GiB"),
    (judge_ballast, ([8 << 20, 8 << 20],), {}, "ok", "16.0 MiB are held"),
    (judge_ballast, ([8 << 20, 0],), {}, "note", "1 of 2 shards have let theirs go"),
    (judge_ballast, ([-1, -1],), {}, "note", "2 of 2 shards have none"),
    (machine.judge_clock, (True, 0.0, 1e-7), {}, "ok", "kept right"),
    (machine.judge_clock, (False, 0.0, 1e-7), {}, "note", "Nobody keeps it right"),
    (machine.judge_clock, (None, 0.0, 1e-7), {}, "note", "can't be found out"),
    (machine.judge_clock, (True, -3.5, 1e-7), {}, "note", "moved by -3.500 s"),
    (machine.judge_clock, (True, 0.0, 3e-6), {}, "note", "3.0 µs"),
    (machine.judge_clock, (True, 0.0, 1e-7, 86_400.0), {}, "problem", "It is 1970-01-02"),
    (machine.judge_cores, (8, None, 8), {"fronts": 1}, "ok", "8 cores for 8 workers and 1 front"),
    (machine.judge_cores, (8, 2.5, 8), {"fronts": 1}, "note", "the time of 2.5"),
    (machine.judge_cores, (8, 0.5, 8), {"fronts": 1}, "note", "server.workers = 1"),
    (machine.judge_cores, (8, 4.0, 4), {"fronts": 1}, "ok", "8 cores for 4 workers"),
    (machine.judge_cores, (2, None, 4), {"fronts": 1}, "note", "share cores"),
    (machine.judge_governor, ("powersave", "acpi-cpufreq"), {}, "note", "lowest frequency"),
    (machine.judge_governor, ("powersave", "intel_pstate"), {}, "ok", "powersave"),
    (machine.judge_governor, ("", ""), {}, "ok", "not ours"),
    (machine.judge_memory, (16 * GIB, None, 2 * GIB), {}, "ok", "16.0 GiB of this machine"),
    (machine.judge_memory, (16 * GIB, GIB, 2 * GIB), {}, "note", "1.0 GiB that a control group allows"),
    (machine.judge_files, (1_024, 11_024), {}, "note", "1,024 are allowed here"),
    (machine.judge_files, (resource.RLIM_INFINITY, 11_024), {}, "ok", "no limit"),
    (machine.judge_requests, (65_500, 65_536, 4), {}, "note", "65,500 of 65,536"),
    (machine.judge_requests, (None, None, 4), {}, "note", "no asynchronous I/O"),
    (machine.judge_requests, (0, 65_536, 4), {}, "ok", "65,536"),
    (
        machine.judge_versions,
        ("6.1.0-rc1", "3.53.0", (3, 11, 2)),
        {},
        "ok",
        "Linux 6.1.0-rc1, Python 3.11.2, SQLite 3.53.0",
    ),
    (machine.judge_versions, ("6.1.0", "3.51.2", (3, 11, 2)), {}, "problem", "SQLite before 3.51.3"),
    (machine.judge_versions, ("4.9.0-13-amd64", "3.53.0", (3, 11, 2)), {}, "note", "before Linux 4.18"),
]


@pytest.mark.parametrize(
    ("judge", "given", "named", "level", "words"), JUDGED, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_machine_is_judged(
    judge: Callable[..., Check], given: tuple[Any, ...], named: dict[str, Any], level: str, words: str
) -> None:
    check = judge(*given, **named)
    assert check.level == level
    assert words in f"{check.what} {check.todo}"
    # Whoever is told of something that is wrong is told what to do.
    assert level == "ok" or check.todo or "can't be" in check.what or "no asynchronous" in check.what


def test_every_check_says_the_same_facts_whatever_it_finds() -> None:
    facts: dict[str, set[tuple[str, ...]]] = {}
    for judge, given, named, _, _ in JUDGED:
        check = judge(*given, **named)
        facts.setdefault(check.name, set()).add(tuple(check.facts))
    assert {name: len(kinds) for name, kinds in facts.items()} == dict.fromkeys(facts, 1)


# -- how it is found out


def test_syncs_are_measured_and_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    took = doctor_disk.measure_syncs(str(tmp_path))
    assert 3 <= len(took) <= doctor_disk.PROBES
    assert all(one > 0 for one in took)
    assert list(tmp_path.iterdir()) == []

    real = os.open

    def without_nameless_files(path: str, flags: int, *rest: Any, **more: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(95, "Operation not supported")
        return real(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", without_nameless_files)
    assert doctor_disk.measure_syncs(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = {check.name: check for check in doctor_disk.disk_checks("/proc")}
    assert checks["sync"].level == "note"
    assert "can't be measured" in checks["sync"].what


def test_the_disk_of_a_path_is_found() -> None:
    assert doctor_disk.disk_of("/proc").kind == "proc"
    assert doctor_disk.disk_of("/").kind != ""


@pytest.mark.parametrize(
    ("files", "own", "quota", "memory"),
    [
        ({}, "0::/\n", None, None),
        ({"a/b/cpu.max": "max 100000", "a/b/memory.max": "max"}, "0::/a/b\n", None, None),
        ({"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000"}, "0::/a/b\n", 1.5, None),
        ({"a/cpu.max": "150000 100000", "cpu.max": "50000 100000", "memory.max": "4096"}, "0::/a\n", 0.5, 4096),
        (
            {
                "cpu/x/cpu.cfs_quota_us": "200000",
                "cpu/x/cpu.cfs_period_us": "100000",
                "memory/memory.limit_in_bytes": "8192",
            },
            "3:cpu,cpuacct:/x\n2:memory:/x\n",
            2.0,
            8192,
        ),
        (
            {"cpu/cpu.cfs_quota_us": "-1", "memory/memory.limit_in_bytes": str((1 << 63) - 4096)},
            "3:cpu:/\n2:memory:/\n",
            None,
            None,
        ),
    ],
)
def test_limits_of_control_groups_are_found_in_both_versions(
    files: dict[str, str], own: str, quota: float | None, memory: int | None, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert machine.cpu_quota(tmp_path, own) == quota
    assert machine.memory_limit(tmp_path, own) == memory


def test_the_clock_is_looked_at() -> None:
    assert machine.clock_synced() in (True, False, None)
    assert 0 < machine.clock_cost() < 0.001
    assert abs(machine.clock_moved()) < 60


# -- the command

run = typer.testing.CliRunner().invoke
NAMES = ["file system", "sync", "room", "ballast", "clock", "cores", "frequency", "memory", "open files"]
NAMES += ["kernel's syncs", "versions"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    datadir.open_data_dir(str(tmp_path / "data"), shards=2, ballast=0).close()
    return tmp_path / "data"


def test_the_json_has_its_keys_whatever_is_found(data: Path) -> None:
    document = json.loads(run(app, ["doctor", "--json", str(data)]).stdout)
    assert list(document) == [
        "healthy", "not_examined", "path", "identity", "shards", "actors", "rows", "commits", "findings", "checks",
    ]  # fmt: skip
    assert [check["name"] for check in document["checks"]] == NAMES
    assert {tuple(check) for check in document["checks"]} == {("name", "level", "what", "todo", "facts")}
    assert document["shards"] == 2
    busy = datadir.open_data_dir(str(data), shards=2, ballast=0)
    try:
        held = json.loads(run(app, ["doctor", "--json", str(data)]).stdout)
    finally:
        busy.close()
    assert list(held) == list(document)
    assert held["healthy"] is None
    assert "A server uses" in held["not_examined"]
    assert [check["name"] for check in held["checks"]] == NAMES


def test_a_problem_of_the_machine_is_an_exit_code_and_a_note_is_none(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = [Check("clock", "note", "It is late.", "Go home.")]
    monkeypatch.setattr(doctor, "_checks", lambda *_: checks)
    monkeypatch.setattr(doctor, "_examine", lambda *_, **__: (None, "Not looked at."))
    noted = run(app, ["doctor", str(data)])
    assert noted.exit_code == 0
    assert noted.stdout.splitlines() == [
        "Not looked at.", "note  clock  It is late.", "             Go home.", "the machine is fine",
    ]  # fmt: skip
    checks.append(Check("memory", "problem", "There is none.\x1b[2J", "Buy some."))
    bad = run(app, ["doctor", str(data)])
    assert bad.exit_code == 1
    assert bad.stdout.splitlines()[-1] == "1 problem of the machine"
    assert "There is none.\\x1b[2J" in bad.stdout
    as_json = run(app, ["doctor", "--json", str(data)])
    assert (as_json.exit_code, json.loads(as_json.stdout)["healthy"]) == (1, False)


def test_without_data_the_machine_alone_is_examined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(app, ["doctor"])
    assert done.exit_code in (0, 1)
    assert done.stdout.startswith(f"There is no data in {tmp_path}: the machine alone is examined.\n")
    (tmp_path / "app.py").touch()
    (tmp_path / "actord.toml").write_text('main = "app.py"\n[server]\ndata_dir = "not/yet"\nworkers = 3\n')
    document = json.loads(run(app, ["doctor", "--json"]).stdout)
    assert document["not_examined"].startswith(f"There is no data in {tmp_path}/not/yet")
    assert next(check for check in document["checks"] if check["name"] == "cores")["facts"]["workers"] == 3
