"""``actord backup``, ``verify`` and ``restore``. The work is done by ``storage.backup`` and ``storage.restore``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from actord.server.commands.progress import shown
from actord.server.commands.running import place
from actord.server.commands.serve import DataDirOption
from actord.server.exits import FAILED, TEMPORARY, UNAVAILABLE, StartError, refusals
from actord.shards.slots import slot_of, slot_range

if TYPE_CHECKING:
    from actord.server.admin import AdminClient
    from actord.storage.backup import Standing

KEEP_SECONDS = 5.0  # how often the server hears that the copy goes on; it waits for ten minutes
BEGIN_SECONDS = 120.0

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
BackupArgument = Annotated[Path, typer.Argument(metavar="BACKUP", help="The backup's folder.", show_default=False)]


def backup(
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="The backup: a new folder.", show_default=False)],
    base: Annotated[
        Path | None,
        typer.Option(metavar="BACKUP", help="An earlier one: what it has is not written again.", show_default=False),
    ] = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy a data directory, of a running server or a stopped one, as it is at one moment.

    Examples:

        actord backup /mnt/backups/monday
        actord backup /mnt/backups/tuesday --base /mnt/backups/monday
        actord backup /mnt/backups/shop --data-dir /var/lib/shop

    All of it is of one moment: what was answered before is in it. The server
    goes on serving. The backup is read back and compared before it gets its
    name; an interrupted one is none. Run it as the server's user. Exit code 1: it failed or damage was found,
    75: try again, 78: it can't be done.
    """
    from actord.storage.backup import take_backup  # the store's modules, which no other command needs

    began = monotonic()
    real = os.path.realpath(place(None, data_dir))
    with refusals(), _source(real) as source:
        with shown(not as_json and sys.stderr.isatty()) as told:
            made = take_backup(source, str(dest), base=None if base is None else str(base), progress=told)
        held = source.held if isinstance(source, RunningSource) else None
    if as_json:
        document = msgspec.to_builtins(made) | {
            "held_ms": None if held is None else round(held * 1000, 3),
            "seconds": round(monotonic() - began, 3),
        }
        print(msgspec.json.encode(document).decode())
        return
    print(f"{made.path}: {_amount(len(made.shards), made.bytes)}, as of {made.moment}, read back and good")
    if base is not None:
        print(f"{_bytes(made.reused)} of it were in {base} already")
    if held is not None:
        print(f"the server went on; replies waited for {held * 1000:.1f} ms")


def verify(
    folder: BackupArgument,
    deep: Annotated[bool, typer.Option("--deep", help="Check every row in it, too, as `actord doctor` does.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Read a backup to its end and compare it with what was written.

    Examples:

        actord verify /mnt/backups/monday
        actord verify --deep --json /mnt/backups/monday

    Exit code 0: it is whole, 1: it is damaged, 78: it is no backup.
    """
    from actord.storage.backup_files import problems_of, read_backup
    from actord.storage.doctor import examine

    with refusals(), shown(not as_json and sys.stderr.isatty()) as told:
        found = read_backup(str(folder))
        problems = problems_of(str(folder), found, told)
        if deep and not problems:
            report = examine(str(folder), slot_of=slot_of, slot_range=slot_range, deep=True, progress=told)
            problems = [f"{each.file}: {each.what}" for each in report.findings if each.level == "damage"]
    if as_json:
        document = {
            "whole": not problems,
            "problems": problems,
            "identity": found.identity,
            "moment": found.moment,
            "shards": msgspec.to_builtins(found.shards),
            "bytes": found.size,
        }
        print(msgspec.json.encode(document).decode())
    elif problems:
        for problem in problems:
            print(f"DAMAGE {problem}")
    else:
        print(f"whole: {_amount(len(found.shards), found.size)}, as of {found.moment}")
    if problems:
        raise typer.Exit(FAILED)


def restore(
    folder: BackupArgument,
    target: Annotated[Path, typer.Argument(metavar="DATA_DIR", help="A new or empty directory.", show_default=False)],
    epoch: Annotated[
        int, typer.Option(min=0, max=1 << 22, metavar="EPOCH", help="Fences of this epoch were seen elsewhere.")
    ] = 0,
    as_json: JsonOption = False,
) -> None:
    """Make a data directory of a backup.

    Examples:

        actord restore /mnt/backups/monday /var/lib/shop
        sudo -u shop actord restore /mnt/backups/monday /var/lib/shop

    Every block is checked. The directory can be served when all of it is there, and not before. What was done after
    the backup is forgotten, so every fence goes on far above those of before; give --epoch when a
    directory restored from the same backup has been served. Run it as the server's user. Exit code 1: the
    backup is damaged, 75: the directory is in use, 78: it can't be done.
    """
    from actord.storage.restore import restore as work

    with refusals(), shown(not as_json and sys.stderr.isatty()) as told:
        done = work(str(folder), str(target), epoch=epoch, progress=told)
    if as_json:
        print(msgspec.json.encode(msgspec.to_builtins(done)).decode())
    else:
        print(f"{target}: restored {_amount(len(done.shards), done.bytes)}, as of {done.moment}")
        print(f"fences go on above epoch {done.epoch}")


class RunningSource:
    """A running server as a ``storage.backup.Source``: its shards hold still until ``end``."""

    def __init__(self, admin: AdminClient, real: str) -> None:
        from actord.storage.backup import Standing

        begun = admin.have_done("backup.begin", on_progress=lambda words: None, patience=BEGIN_SECONDS)
        self._admin = admin
        self._id = begun["id"]
        self._kept = monotonic()
        self.path = real
        self.identity: str = begun["identity"]
        self.moment: int = begun["moment"]
        self.held: float = begun["held"]
        self.shards: list[Standing] = [Standing(at["shard"], at["commit_seq"], at["frames"]) for at in begun["shards"]]

    def keep(self) -> None:
        if monotonic() - self._kept >= KEEP_SECONDS:
            self._kept = monotonic()
            self._check(self._admin.ask("backup.keep", id=self._id))

    def end(self) -> None:
        self._check(self._admin.ask("backup.end", id=self._id))

    def close(self) -> None:
        """However it went: nothing is held for it any longer."""
        self._admin.ask("backup.end", id=self._id)

    def _check(self, held: list[Any]) -> None:
        if not all(held):
            raise StartError(
                "The server gave the backup up: a log reached storage.backup_wal, the disk is full, or a worker was "
                "replaced (its log says which). Nothing was kept; run it again.",
                TEMPORARY,
            )


@contextmanager
def _source(real: str) -> Iterator[Any]:
    """The running server on a data directory, or the directory itself when there is none."""
    from actord.server.admin import AdminClient
    from actord.storage.stopped import StoppedSource, kept_out

    try:
        admin = AdminClient(real)
    except StartError as error:
        if error.exit != UNAVAILABLE:
            raise
        with kept_out(real, "It does not answer on its admin socket; try again."):
            yield StoppedSource(real)
        return
    with admin:
        source = RunningSource(admin, real)
        try:
            yield source
        except BaseException:
            with suppress(StartError):  # the server is gone, and the reason is known
                source.close()
            raise


def _amount(shards: int, size: int) -> str:
    return f"{shards} shard{'' if shards == 1 else 's'}, {_bytes(size)}"


def _bytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
