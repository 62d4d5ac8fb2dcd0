"""What the commands share that look into a data directory, whether a server runs on it or not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from actord import codec
from actord import json as edge
from actord.errors import CodecError
from actord.limits import NAME_BYTES
from actord.server.commands.running import place
from actord.server.exits import StartError, refusals
from actord.shards.slots import shard_of_slot, slot_of

if TYPE_CHECKING:
    from actord.server.admin import AdminClient
    from actord.storage.look import Look

T = TypeVar("T")

KeyArgument = Annotated[str, typer.Argument(metavar="TYPE/NAME", help="The actor, as in Account/alice.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def parsed(key: str) -> tuple[str, str]:
    """Type and name of TYPE/NAME. Raises ``typer.BadParameter``."""
    type_, slash, name = key.partition("/")
    if not (type_ and slash and name):
        raise typer.BadParameter(f"{key!r} is not TYPE/NAME, as in Account/alice.", param_hint="TYPE/NAME")
    if not type_.isidentifier():
        raise typer.BadParameter(f"{type_!r} can't be the name of a class.", param_hint="TYPE/NAME")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise typer.BadParameter("The name is no valid UTF-8.", param_hint="TYPE/NAME") from None
    if size > NAME_BYTES:
        raise typer.BadParameter(f"A name has up to {NAME_BYTES} bytes.", param_hint="TYPE/NAME")
    return type_, name


def plain(text: str) -> str:
    """On one line and without what a terminal would act upon."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def json_text(value: Any) -> str:
    """JSON in one line, in which nothing is left that a terminal would act upon."""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    return json.dumps(character)[1:-1]


def value_of(raw: bytes) -> tuple[str, Any]:
    """A stored value as the name of its type and as JSON: its ``repr`` where JSON has nothing for it."""
    try:
        value = codec.decode(raw)
    except CodecError as error:
        return "damaged", str(error.detail)
    try:
        return type(value).__name__, json.loads(edge.dumps(value))
    except (CodecError, ValueError):
        return type(value).__name__, repr(value)


_TOGETHER = 64  # shards; SQLite attaches up to 125


class Place:
    """A data directory, and where a name lives in it. Raises ``StartError`` when there is none."""

    def __init__(self, app: str | None, data_dir: Path | None) -> None:
        from actord.storage.datadir import read_manifest

        self.path = os.path.abspath(place(app, data_dir))
        with refusals():
            self.shards = read_manifest(self.path).shards

    def shard(self, key: tuple[str, str]) -> int:
        return shard_of_slot(slot_of(*key), self.shards)

    def look(self, shards: list[int] | None, work: Callable[[Look], T]) -> T:
        """What ``work`` makes of these shards, or of all."""
        from actord.storage.look import looked  # the store's modules, which few commands need

        with refusals():
            return looked(self.path, shards, work)

    def look_in_groups(self, work: Callable[[Look], T]) -> list[T]:
        """The same for all shards, a number of them at a time."""
        groups = range(0, self.shards, _TOGETHER)
        return [self.look(list(range(self.shards)[first : first + _TOGETHER]), work) for first in groups]

    def server(self) -> AdminClient | None:
        """A line to the server that runs on it; None when none does."""
        from actord.server.admin import AdminClient

        try:
            return AdminClient(self.path)
        except StartError:
            return None
