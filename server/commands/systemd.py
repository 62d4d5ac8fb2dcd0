"""``actord systemd``: the units of a server, printed or written. The text is made by ``server.units``."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from actord.server.commands.serve import AppArgument, ConfigOption
from actord.server.config import resolve
from actord.server.exits import CONFIG, ConfigError, StartError
from actord.server.program import PROJECT_FILE
from actord.server.units import Plan, Units, units
from actord.settings import Settings

# Of the units in configs/, which belong to no program.
EXAMPLE = ("/opt/actord/bin/actord", "serve", "/srv/actord")
SYSTEM_FOLDER = "/etc/systemd/system"
USER_FOLDER = "~/.config/systemd/user"


def systemd(
    app: AppArgument = None,
    user: Annotated[bool, typer.Option("--user", help="For your own manager, without root.")] = False,
    name: Annotated[str, typer.Option(metavar="NAME", help="The name of both units, and of their user.")] = "actord",
    host: Annotated[str | None, typer.Option(metavar="ADDRESS", help="As for serve.", show_default=False)] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65_535, help="As for serve.", show_default=False)] = None,
    uds: Annotated[str | None, typer.Option(metavar="PATH", help="As for serve.", show_default=False)] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where the data is kept.", show_default="/var/lib/NAME"),
    ] = None,
    tokens: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A token file, handed over as a credential.", show_default=False),
    ] = None,
    config: ConfigOption = None,
    write: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write both files there instead of printing them.", show_default=False),
    ] = None,
) -> None:
    """Print the service and the socket for systemd.

    Examples:

        actord systemd
        actord systemd /srv/shop --name shop --port 9000
        actord systemd /srv/shop --name shop --write /etc/systemd/system
        actord systemd shop --user --write ~/.config/systemd/user

    APP is the program, as for serve; without one, and without a project in
    the current folder, the units are those of configs/ in the source, to be
    changed by hand. What the project's actord.toml says of ports and limits is
    in the units. A file that is there and says something else is left alone.
    """
    if user and tokens is not None:
        raise typer.BadParameter("the manager of a user hands over no credentials.", param_hint="--tokens")
    made = _units(app, user, name, host, port, uds, data_dir, tokens, config)
    if write is not None:
        _write(made, write)
        _tell_next(made, user)
        return
    folder = USER_FOLDER if user else SYSTEM_FOLDER
    print("\n".join(f"# {folder}/{file}\n{text}" for file, text in made.files().items()), end="")


def _units(
    app: str | None,
    user: bool,
    name: str,
    host: str | None,
    port: int | None,
    uds: str | None,
    data_dir: Path | None,
    tokens: Path | None,
    config: Path | None,
) -> Units:
    flags: dict[tuple[str, str], Any] = {("server", "host"): host, ("server", "port"): port, ("server", "uds"): uds}
    if app is None and config is None and not Path(PROJECT_FILE).is_file():
        settings = Settings()
        for (_, key), value in flags.items():
            if value is not None:
                setattr(settings.server, key, value)
        if uds is not None and host is None and port is None:
            settings.server.host = ""
        serve: tuple[str, ...] = EXAMPLE
    else:
        # The environment is that of this shell, and not that of the service.
        settings = resolve(app, config=None if config is None else str(config), flags=flags, environ={})
        serve = (_command(), "serve", *_program(app, config))
    return units(
        Plan(
            name,
            serve,
            data_dir="" if data_dir is None else os.path.abspath(data_dir),
            tokens="" if tokens is None else os.path.abspath(tokens),
            user=user,
        ),
        settings,
    )


def _program(app: str | None, config: Path | None) -> list[str]:
    """APP as a service can find it, whatever folder it starts in."""
    words = []
    if app is not None:
        top = app.partition(".")[0]
        if Path(app).exists():
            words.append(os.path.abspath(app))
        elif Path(top).exists() or Path(f"{top}.py").exists():
            raise ConfigError(
                f"A service finds no module in a current folder: name a file, or a folder with {PROJECT_FILE}, in the "
                f"place of {app}."
            )
        else:
            words.append(app)  # a module that is installed
    elif config is None:
        words.append(os.getcwd())
    if config is not None:
        words += ["--config", os.path.abspath(config)]
    return words


def _command() -> str:
    """The ``actord`` that runs now."""
    beside = Path(sys.executable).with_name("actord")
    found = str(beside) if beside.is_file() else shutil.which("actord")
    if found is None:
        raise StartError("The command actord is not installed beside this Python: install the package.", CONFIG)
    return os.path.abspath(found)


def _write(made: Units, folder: Path) -> None:
    for file, text in made.files().items():
        path = folder / file
        try:
            if path.exists() and path.read_text() != text:
                raise StartError(f"{path} exists and says something else: remove it, or choose another --name.", CONFIG)
        except OSError as error:
            raise StartError(f"{path} can't be read: {error.strerror}.", CONFIG) from None
    for file, text in made.files().items():
        try:
            (folder / file).write_text(text)
        except OSError as error:
            raise StartError(f"{folder / file} can't be written: {error.strerror}.", CONFIG) from None
        print(folder / file)


def _tell_next(made: Units, user: bool) -> None:
    systemctl = "systemctl --user" if user else "systemctl"
    print(
        f"actord: next: {systemctl} daemon-reload && {systemctl} enable --now {made.name}.socket {made.name}.service",
        file=sys.stderr,
    )
