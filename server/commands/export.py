"""``actord export``: actors as a whole, as lines of JSON (``shards/whole.py``), read from the files."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from actord.server.commands.looking import Place, parsed, plain
from actord.server.commands.progress import shown
from actord.server.commands.serve import AppArgument, DataDirOption
from actord.server.exits import CONFIG, FAILED, StartError
from actord.shards import whole
from actord.shards.slots import slot_of
from actord.shards.whole import Whole

if TYPE_CHECKING:
    from actord.storage.look import Look

AT_ONCE = 50  # actors that one look reads
NAMES_AT_ONCE = 1_000
END = b'{"actord_end":'

Key = tuple[str, str]


def read(place: Place, keys: list[Key]) -> list[Whole]:
    """What these actors have stored, each as of one commit; those without data are left out."""
    from actord.storage import look_actor

    found: dict[Key, Whole] = {}
    by_shard: dict[int, list[Key]] = {}
    for key in keys:
        by_shard.setdefault(place.shard(key), []).append(key)
    for shard, wanted in by_shard.items():

        def work(look: Look, shard: int = shard, wanted: list[Key] = wanted) -> dict[Key, Whole]:
            some: dict[Key, Whole] = {}
            for key in wanted:
                id_ = look_actor.find(look, shard, slot_of(*key), *key)
                if id_ is None:
                    continue
                stored = look_actor.stored(look, shard, id_, keys=1 << 40)
                pages = [] if stored.sql is None else whole.pages_of(stored.sql)
                some[key] = Whole(*key, stored.version, dict(stored.items), pages, stored.alarm)
            return some

        found |= place.look([shard], work)
    return [found[key] for key in keys if key in found and found[key].has_data]


def _keys(place: Place, types: list[str]) -> Iterator[list[Key]]:
    from actord.storage import look_actor

    for type_ in types:
        after = ""
        while True:

            def page(look: Look, type_: str = type_, after: str = after) -> list[str]:
                return look_actor.names(look, type_, prefix="", after=after, limit=NAMES_AT_ONCE)

            names = place.look(None, page)
            for at in range(0, len(names), AT_ONCE):
                yield [(type_, name) for name in names[at : at + AT_ONCE]]
            if len(names) < NAMES_AT_ONCE:
                break
            after = names[-1]


def export(
    what: Annotated[
        str | None,
        typer.Argument(metavar="TYPE[/NAME]", help="A type or an actor; without it all.", show_default=False),
    ] = None,
    app: AppArgument = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write them to a new file.", show_default="standard output")
    ] = None,
    data_dir: DataDirOption = None,
) -> None:
    """Write actors as lines of JSON, of a running server or a stopped data directory.

    Examples:

        actord export Account/alice
        actord export Account --out accounts.jsonl
        actord export --data-dir /var/lib/shop | gzip > shop.jsonl.gz

    Each line is all that one actor has stored, as of one commit; the last line
    says how many there are. docs/moving.md explains it. Exit code 1: there is no such actor.
    """
    from actord.storage import look_actor

    place = Place(app, data_dir)
    if what is not None and "/" in what:
        pages: Iterator[list[Key]] = iter([[parsed(what)]])
        total = 1
    else:
        counts = place.look(None, look_actor.count_types)
        if what is not None and what not in counts:
            raise StartError(f"There is no {plain(what)}.", FAILED)
        types = list(counts) if what is None else [what]
        total = sum(counts[type_] for type_ in types)
        pages = _keys(place, types)
    with _output(out) as file, shown(out is not None and sys.stderr.isatty()) as told:
        count = 0
        for keys in pages:
            for found in read(place, keys):
                file.write(whole.encode(found) + b"\n")
                count += 1
            told("exporting", min(1.0, count / max(1, total)))
        if what is not None and not count:
            raise StartError(f"There is no {plain(what)}: it has never written anything.", FAILED)
        file.write(END + b"%d}\n" % count)
    if out is not None:
        print(f"actord: {count:,} actor{'' if count == 1 else 's'} in {out}", file=sys.stderr)


class _output:
    """The file to write: it has its name when it is whole and on the disk."""

    def __init__(self, out: Path | None) -> None:
        self._out = out
        self._part = Path(f"{out}.partial")

    def __enter__(self) -> Any:
        if self._out is None:
            self._file: Any = sys.stdout.buffer
            return self._file
        if os.path.lexists(self._out):
            raise StartError(f"{self._out} is there already.", CONFIG)
        try:
            self._file = open(self._part, "wb", opener=_private)
        except OSError as error:
            raise StartError(f"{self._part} can't be written: {error.strerror}.", CONFIG) from None
        return self._file

    def __exit__(self, kind: object, *_: object) -> None:
        self._file.flush()
        if self._out is None:
            return
        os.fsync(self._file.fileno())
        self._file.close()
        if kind is None:
            os.rename(self._part, self._out)
        else:
            os.unlink(self._part)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC, 0o600)
