"""``actord init``: a new project that runs and is tested from its first minute."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from actord.server.exits import CONFIG, StartError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

# In the templates; a name that no project has.
PLACEHOLDER = "project-name"


def init(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new folder; its last part names the project.")],
) -> None:
    """Make a new project: an actor, a front door, a test.

    Examples:

        actord init shop
        actord dev shop

    It writes actord.toml, app.py, test_app.py and a short README.md. A folder
    that exists and is not empty is left alone.
    """
    folder = Path(name)
    project = folder.absolute().name
    if not re.fullmatch(r"[^\W\d_][\w.-]*", project):
        raise StartError(
            f"{project!r} is no good name for a project: it begins with a letter; -, _ and . may follow.", CONFIG
        )
    if folder.is_dir() and any(folder.iterdir()):
        raise StartError(f"{folder} exists and is not empty: it is left alone. Choose another name.", CONFIG)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = [_write(template, folder, project) for template in _templates()]
    except OSError as error:
        raise StartError(f"Can't write to {folder}: {error.strerror}.", CONFIG) from None
    for path in sorted(written):
        print(path)
    typer.echo(f"\nNow run:  actord dev {name}", err=True)


def _templates() -> list[Traversable]:
    from importlib.resources import files

    folder = files("actord.server") / "scaffold"
    return [entry for entry in folder.iterdir() if entry.is_file()]


def _write(template: Traversable, folder: Path, project: str) -> Path:
    target = folder / template.name.replace("dot-", ".", 1)
    target.write_text(template.read_text("utf-8").replace(PLACEHOLDER, project), "utf-8")
    return target
