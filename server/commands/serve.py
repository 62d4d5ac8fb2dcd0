"""``actord serve`` and ``actord dev``."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from actord import logs
from actord.server.config import resolve
from actord.settings import Settings

APP_HELP = (
    "The program: a Python file, a module, or a folder with actord.toml. Without it: the current folder, or the folder "
    "of --config."
)


class Level(StrEnum):
    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


class Format(StrEnum):
    text = "text"
    json = "json"


AppArgument = Annotated[str | None, typer.Argument(metavar="APP", help=APP_HELP, show_default=False)]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="The file to read in the place of actord.toml.", show_default=False),
]
HostOption = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Listen here; a public address needs tokens.", show_default="127.0.0.1"),
]
PortOption = Annotated[
    int | None,
    typer.Option(metavar="PORT", min=0, max=65_535, help="The TCP port; 0 picks a free one.", show_default="8000"),
]
UdsOption = Annotated[
    str | None,
    typer.Option(
        metavar="PATH", help="Listen on this unix socket, and on TCP only if asked for as well.", show_default=False
    ),
]
WorkersOption = Annotated[
    int | None, typer.Option(metavar="N", min=0, help="Worker processes; 0 is one for each core.", show_default="0")
]
DataDirOption = Annotated[
    Path | None, typer.Option(metavar="FOLDER", help="Where the actors' data is kept.", show_default="data")
]
LevelOption = Annotated[Level | None, typer.Option(help="How much is logged.", show_default="info")]
FormatOption = Annotated[
    Format | None, typer.Option(help="Lines for people, or JSON objects for collectors.", show_default="text")
]


def serve(
    app: AppArgument = None,
    host: HostOption = None,
    port: PortOption = None,
    uds: UdsOption = None,
    workers: WorkersOption = None,
    data_dir: DataDirOption = None,
    log_level: LevelOption = None,
    log_format: FormatOption = None,
    config: ConfigOption = None,
) -> None:
    """Serve a program until Ctrl-C or SIGTERM.

    Examples:

        actord serve examples/account.py
        actord serve shop --port 9000 --data-dir /var/lib/shop
        actord serve shop.main --uds /run/shop/http.sock
        ACTORD_RUNTIME_IDLE_AFTER=5 actord serve shop

    When it is ready, its address stands on standard output, one line for
    each, unless that is a terminal; all words go to standard error:

        actord serve shop --port 0 > address &

    The first signal lets running calls finish and commit, within
    server.drain_limit; a second one ends the server at once. SIGHUP loads
    the program and its configuration anew, as `actord reload` does.
    """
    raise typer.Exit(
        _run(lambda: _settings(app, config, host, port, uds, workers, data_dir, log_level, log_format), watch=False)
    )


def dev(
    app: AppArgument = None,
    host: HostOption = None,
    port: PortOption = None,
    uds: UdsOption = None,
    workers: WorkersOption = None,
    data_dir: DataDirOption = None,
    log_level: LevelOption = None,
    log_format: FormatOption = None,
    config: ConfigOption = None,
) -> None:
    """Serve a program, and load it anew whenever its files change.

    Examples:

        actord dev shop
        actord dev app.py --log-level debug

    Workers are replaced one after the other: each finishes its calls and
    commits, and calls that arrive in between wait. A program that does not
    load is reported and replaces nothing until the next change.
    """
    raise typer.Exit(
        _run(lambda: _settings(app, config, host, port, uds, workers, data_dir, log_level, log_format), watch=True)
    )


def _settings(
    app: str | None,
    config: Path | None,
    host: str | None,
    port: int | None,
    uds: str | None,
    workers: int | None,
    data_dir: Path | None,
    log_level: Level | None,
    log_format: Format | None,
) -> Settings:
    flags: dict[tuple[str, str], Any] = {
        ("server", "host"): host,
        ("server", "port"): port,
        ("server", "uds"): uds,
        ("server", "workers"): workers,
        ("server", "data_dir"): None if data_dir is None else str(data_dir),
        ("log", "level"): None if log_level is None else log_level.value,
        ("log", "format"): None if log_format is None else log_format.value,
    }
    return resolve(app, config=None if config is None else str(config), flags=flags)


def _run(resolve: Callable[[], Settings], *, watch: bool) -> int:
    from actord.server import supervisor

    settings = resolve()
    logs.configure(settings.log.level, settings.log.format, process="supervisor")
    if watch:
        from actord.server.reload import watch_program

        return supervisor.run(settings, resolve=resolve, companion=watch_program, worker=supervisor.DEV_WORKER)
    return supervisor.run(settings, resolve=resolve)
