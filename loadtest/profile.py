"""Where each microsecond of a durable call goes: CPU of the front and of a worker, divided by what the code does.

``python -m actord.loadtest.profile`` (or ``make profile``). While wrk deposits into 10,000 accounts, py-spy takes the
stacks of one process after the other, C frames included; a sample belongs to the innermost function of actord in it,
and within that to the system call that it ends in. What a process takes for a call comes from the kernel's account of
it (user and system time), and is divided by the samples; those that wait for events are left out. Samples are taken
by the clock: on a machine that does other things too, what a process does when it is interrupted looks dear. Syncs run
off the loop meanwhile, since a sample can't tell the work of a sync from its wait for the disk.

Needs wrk and py-spy, and the right to trace processes of one's own. Exit status: 0; 69 when the server, wrk or py-spy
did not come up; 78 when the data would be kept in memory.
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import psutil
from actord.loadtest import machine, systems
from actord.loadtest.audit import AuditError
from actord.loadtest.measure import MeasureError, WrkResult, process_tree, role_of, run_wrk
from actord.loadtest.rounds import EX_CONFIG, EX_UNAVAILABLE
from rich.box import MARKDOWN
from rich.console import Console
from rich.table import Table

RATE = 400  # samples a second
WAITING = "epoll_pwait"
CALLS = {"read": "kernel: read", "write": "kernel: write", "pwrite": "kernel: write to the log", "io_submit": "kernel"}
LOOP = "event loop"
# The innermost of these files in a stack says what was being done; the first that fits, by role.
PARTS: dict[str, tuple[tuple[str, str], ...]] = {
    "front": (
        ("server/front.py", LOOP),
        ("server/http.py", "parse the request"),
        ("server/heads.py", "parse the request"),
        ("server/routes.py", "route it"),
        ("shards/slots.py", "route it"),
        ("shards/wire.py", "link: frames"),
        ("shards/link.py", "link: calls that wait"),
        ("server/exchange.py", "build and send the answer"),
        ("server/", "the connection's state"),
    ),
    "worker": (
        ("shards/worker.py", LOOP),
        ("shards/wire.py", "link: frames"),
        ("shards/intake.py", "link: replies"),
        ("shards/gate.py", "output gate"),
        ("shards/dispatch.py", "dispatch"),
        ("shards/arguments.py", "arguments"),
        ("json.py", "arguments and reply: JSON"),
        ("codec.py", "storage: values"),
        ("shards/kv.py", "storage: cache and writes"),
        ("storage/flush.py", "ask for the sync"),
        ("storage/", "rows and commit"),
        ("shards/committer.py", "rows and commit"),
        ("shards/", "turn"),
    ),
}
PROGRAM = "the actor's own code"
# As py-spy shortens them: from the package on, which in a clone is one of our folders.
OURS = re.compile(r"(?:.*\bactord|sdk|server|shards|storage)/").match

Profile = Mapping[str, float]


def part_of(role: str, stack: str, program: str) -> str | None:
    """What a stack was doing, outermost frame first, separated by ``;``. None: it waited for events."""
    frames = stack.split(";")
    leaf = frames[-1].partition(" ")[0].lstrip("_").removeprefix("libc_").removesuffix("64")
    if leaf == WAITING:
        return None
    kernel = CALLS.get(leaf)
    for frame in reversed(frames):
        place = frame.partition("(")[2]
        if program in place:
            return PROGRAM
        if not OURS(place):
            continue
        place = place.rpartition("actord/")[2].removeprefix("sdk/")
        found = next((what for file, what in PARTS[role] if place.startswith(file)), LOOP)
        return f"{found} ({kernel})" if kernel else found
    return f"{LOOP} ({kernel})" if kernel else LOOP


def divide(role: str, raw: Iterable[str], program: str, total: float) -> Profile:
    """Divide ``total`` by the samples of py-spy's raw format: lines of a stack and a count."""
    counts: Counter[str] = Counter()
    for line in raw:
        stack, _, count = line.rpartition(" ")
        part = part_of(role, stack, program)
        if part is not None:
            counts[part] += int(count)
    samples = sum(counts.values())
    return {part: count / samples * total for part, count in counts.most_common()}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="profile", description="Where the CPU of a durable call goes.")
    parser.add_argument("--seconds", type=int, default=10, help="how long each process is watched (10)")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--workers", type=int, default=1, help="worker processes (1); one of them is watched")
    parser.add_argument("--dir", type=Path, default="/var/tmp", help="where the data is kept (/var/tmp)")
    parser.add_argument("--app", default="examples/account.py", help="the program that actord serves")
    parser.add_argument("--actord", default=str(Path(sys.executable).with_name("actord")), help="starts actord")
    options = parser.parse_args(arguments)
    console = Console(width=120, highlight=False)
    spy = shutil.which("py-spy", path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin")
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="actord-profile-", dir=options.dir)))
        if machine.file_system(directory) in machine.VOLATILE:
            console.print(f"{options.dir} is kept in memory: choose a folder on a disk with --dir")
            return EX_CONFIG
        settings = [f"ACTORD_SERVER_WORKERS={options.workers}", "ACTORD_STORAGE_FLUSH=kernel"]
        command = ["env", *settings, *shlex.split(options.actord)]
        try:
            if spy is None:
                raise systems.SystemMissing("py-spy is not installed: pip install py-spy")
            system = stack.enter_context(systems.actord(directory, command, options.app))
            assert system.accounts is not None
            system.accounts.open()
            run_wrk(system.port, connections=64, names=system.names, seconds=2, path=system.path)  # warm
            for role in PARTS:
                process = next(p for p in process_tree(system.roots) if role_of(p.cmdline()) == role)
                raw = directory / f"{role}.raw"
                used, result = watch(spy, process, raw, system, options)
                cost = [1e6 * seconds / result.requests * _alike(system, role) for seconds in used]
                found = divide(role, raw.read_text().splitlines(), Path(options.app).name, sum(cost))
                words = f"{role}: {sum(cost):.1f} µs a call ({cost[0]:.1f} user, {cost[1]:.1f} kernel)"
                console.print(f"\n{words} at {result.requests / options.seconds:,.0f} calls/s", table(found))
        except (systems.SystemFailed, MeasureError, AuditError, OSError) as error:
            console.print(f"profile: {error}", markup=False)
            return EX_UNAVAILABLE
    return 0


def _alike(system: systems.System, role: str) -> int:
    """How many processes of a role share the calls."""
    return sum(role_of(process.cmdline()) == role for process in process_tree(system.roots))


def watch(
    spy: str, process: psutil.Process, raw: Path, system: systems.System, options: argparse.Namespace
) -> tuple[tuple[float, float], WrkResult]:
    """The user and system seconds of a process during a run without the watcher, then its stacks during another."""
    before = process.cpu_times()
    result = system.load("uniform", options.connections, options.seconds)
    after = process.cpu_times()
    load = threading.Thread(target=lambda: system.load("uniform", options.connections, options.seconds + 2))
    load.start()
    try:
        command = f"{spy} record --native --format raw --rate {RATE} --duration {options.seconds} --pid {process.pid}"
        subprocess.run(
            [*command.split(), "--output", str(raw)],
            check=True,
            capture_output=True,
            text=True,
        )
    except subprocess.CalledProcessError as error:
        raise systems.SystemFailed(f"py-spy: {error.stderr.strip()[-500:]}") from None
    finally:
        load.join()
    return (after.user - before.user, after.system - before.system), result


def table(found: Profile) -> Table:
    """One process, for people and for docs/performance.md."""
    shown = Table(box=MARKDOWN)
    shown.add_column("part")
    shown.add_column("µs", justify="right")
    for part, cost in found.items():
        if cost >= 0.05:
            shown.add_row(part, f"{cost:.1f}")
    return shown


if __name__ == "__main__":
    sys.exit(main())
