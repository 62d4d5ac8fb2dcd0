"""Which program is meant: from the word on the command line to a folder, a main module and a project file."""

from __future__ import annotations

import importlib.util
import keyword
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from actord.limits import TYPE_CHARS
from actord.server.exits import ConfigError
from actord.settings import ActorBinding, MountedProgram

PROJECT_FILE = "actord.toml"

_MOUNT = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")


class Located(NamedTuple):
    """``root`` goes first on ``sys.path``; ``main`` is empty when the project file has to name it; relative paths that
    nobody set count from ``base``; ``config`` is the project file, if there is one."""

    root: Path
    main: str
    base: Path
    config: Path | None

    def check_main(self, main: str) -> None:
        """Raises ``ConfigError`` when there is no such file or module."""
        if main.endswith(".py"):
            if not (self.root / main).is_file():
                raise ConfigError(
                    f"There is no file {self.root / main}" + (f" ({self.config}: main)." if self.config else ".")
                )
            return
        if not _MODULE.fullmatch(main):
            raise ConfigError(f"{main!r} is neither a Python file (name.py) nor a module's name (package.module).")
        top = main.partition(".")[0]
        if any((self.root / candidate).exists() for candidate in (top, f"{top}.py")):
            return
        try:
            found = importlib.util.find_spec(top)
        except (ImportError, ValueError):
            found = None
        if found is None:
            raise ConfigError(
                f"There is no file, folder or module {main!r}. Give a Python file (app.py), a module "
                f"(package.module) or a folder with {PROJECT_FILE}."
            )


def locate(app: str | None, config: str | None) -> Located:
    """Find the program that ``app`` means; with ``config``, that file is its project file.

    A folder (or nothing: the current one) must have an actord.toml. A file or module needs none and reads only the
    one that ``config`` names; its data directory counts from the current folder then.
    """
    here = Path.cwd()
    file = None if config is None else Path(config).absolute()
    if file is not None and not file.is_file():
        raise ConfigError(f"There is no file {file} (--config).")
    if app is None and file is not None:
        return Located(file.parent, "", file.parent, file)
    path = Path(app or ".")
    if path.is_dir():
        folder = path.absolute()
        folder = folder.resolve() if folder.name in ("", "..") else folder
        project = file or folder / PROJECT_FILE
        if not project.is_file():
            if app is not None and _MODULE.fullmatch(app) and (path / "__init__.py").is_file():
                return Located(here, app, here, None)  # a package in the current folder
            raise ConfigError(
                f"There is no {PROJECT_FILE} in {folder}. Give the program's file, as in `actord serve app.py`, or "
                "make a project with `actord init NAME`."
            )
        return Located(folder, "", folder, project)
    if path.suffix == ".py" or "/" in str(path):
        if not path.is_file():
            raise ConfigError(f"There is no file {path}.")
        if path.suffix != ".py":
            raise ConfigError(f"{path} is no Python file: its name does not end with .py.")
        absolute = path.absolute()
        return Located(absolute.parent, absolute.name, file.parent if file else here, file)
    return Located(here, str(app), file.parent if file else here, file)


def check_bindings(place: str, entries: Any) -> list[ActorBinding]:
    """The ``[[actors]]`` of a project file, checked. Raises ``ConfigError``."""
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError(f"{place}: actors is a list of tables: write [[actors]] with binding and type below it.")
    bindings: list[ActorBinding] = []
    for number, entry in enumerate(entries, 1):
        where = f"{place}: [[actors]] number {number}"
        for key in entry:
            if key not in ("binding", "type", "expose"):
                raise ConfigError(f"{where}: unknown key {key!r}. Known are: binding, type, expose.")
        for key in ("binding", "type"):
            _check_identifier(where, key, entry.get(key))
        if len(entry["type"]) > TYPE_CHARS:
            raise ConfigError(f"{where}: type {entry['type']!r} is longer than {TYPE_CHARS} characters.")
        if type(entry.get("expose", True)) is not bool:
            raise ConfigError(f"{where}: expose = {entry['expose']!r} can't be: write true or false.")
        bindings.append(ActorBinding(**entry))
    twice = _first_repeated([one.binding for one in bindings])
    if twice is not None:
        raise ConfigError(f"{place}: [[actors]]: the binding {twice!r} is there twice.")
    return bindings


def check_programs(place: str, entries: Any, located: Located) -> list[MountedProgram]:
    """The ``[[programs]]`` of a project file, checked. Raises ``ConfigError``."""
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ConfigError(f"{place}: programs is a list of tables: write [[programs]] with main and mount below it.")
    programs: list[MountedProgram] = []
    for number, entry in enumerate(entries, 1):
        where = f"{place}: [[programs]] number {number}"
        for key in entry:
            if key not in ("main", "mount", "actors"):
                raise ConfigError(f"{where}: unknown key {key!r}. Known are: main, mount, actors.")
        main, mount = entry.get("main"), entry.get("mount", "")
        if not isinstance(main, str) or not main:
            raise ConfigError(f"{where}: the key main is missing. It names the program, as the main of the file does.")
        if not isinstance(mount, str) or (mount and not _MOUNT.fullmatch(mount)):
            raise ConfigError(f'{where}: mount = {mount!r} can\'t be: write a path such as "/shop".')
        if mount.partition("/")[2].partition("/")[0] in ("actors", "-"):
            raise ConfigError(f"{where}: mount = {mount!r} can't be: /actors and /- are the server's own.")
        located.check_main(main)
        programs.append(MountedProgram(main=main, mount=mount, actors=check_bindings(where, entry.get("actors", []))))
    mounts = [one.mount for one in programs if one.mount]
    for key, names in (("main", [one.main for one in programs]), ("mount", mounts)):
        twice = _first_repeated(names)
        if twice is not None:
            raise ConfigError(f"{place}: [[programs]]: the {key} {twice!r} is there twice.")
    return programs


def _check_identifier(where: str, key: str, value: Any) -> None:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{where}: the key {key} is missing." if value is None else f"{where}: {key} is not a text.")
    if not value.isidentifier() or not value.isascii() or keyword.iskeyword(value):
        raise ConfigError(f"{where}: {key} {value!r} is not an identifier: letters, digits and _ only.")
    if "__" in value:
        raise ConfigError(f"{where}: {key} {value!r} has two underscores in a row; they are reserved.")


def _first_repeated(names: Sequence[str]) -> str | None:
    return next((name for index, name in enumerate(names) if name in names[:index]), None)
