"""The command line. Data goes to standard output, words to standard error; exit codes follow sysexits.h.

Only this module and ``commands`` import typer and rich: no child process ever loads them.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable
from typing import Annotated, Any

import actord
import typer
from actord.server.commands import call, check, doctor, init, openapi, serve, systemd, tail
from actord.server.commands.alarms import alarms
from actord.server.commands.backup import backup, restore, verify
from actord.server.commands.export import export
from actord.server.commands.inspect import inspect
from actord.server.commands.ls import ls
from actord.server.commands.migrate import migrate
from actord.server.commands.moving import fork, import_
from actord.server.commands.outbox import outbox
from actord.server.commands.reload import reload
from actord.server.commands.reshard import reshard
from actord.server.commands.sql import sql
from actord.server.commands.token import token
from actord.server.commands.top import top
from actord.server.commands.values import get, put, rm
from actord.server.exits import StartError

app = typer.Typer(
    name="actord",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# The chapters of the help, in its order.
CHAPTERS: dict[str, dict[str, Callable[..., Any] | typer.Typer]] = {
    "Write and serve a program": {
        "init": init.init,
        "dev": serve.dev,
        "check": check.check,
        "openapi": openapi.openapi,
        "serve": serve.serve,
        "reload": reload,
        "systemd": systemd.systemd,
    },
    "Call actors, and watch them": {"call": call.call, "tail": tail.tail, "top": top},
    "See and change what is stored": {
        "ls": ls,
        "inspect": inspect,
        "sql": sql,
        "get": get,
        "put": put,
        "rm": rm,
        "alarms": alarms,
        "outbox": outbox,
    },
    "Copy and move data": {
        "backup": backup,
        "verify": verify,
        "restore": restore,
        "export": export,
        "import": import_,
        "fork": fork,
        "reshard": reshard,
        "migrate": migrate,
    },
    "Keep it safe": {"token": token, "doctor": doctor.doctor},
}
for chapter, commands in CHAPTERS.items():
    for name, command in commands.items():
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, rich_help_panel=chapter)
        else:
            app.command(name, rich_help_panel=chapter)(command)


def _compiled() -> bool:
    """Whether what runs turns is an extension module. It is looked for and not loaded: that would take a while."""
    found = importlib.util.find_spec("actord.shards.turns")
    return found is not None and isinstance(found.loader, importlib.machinery.ExtensionFileLoader)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"{actord.__version__} (compiled)" if _compiled() else actord.__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Run durable actors: named objects that do one thing at a time and answer when it is on disk.

    A first project, from nothing to an answer:

        actord init shop
        actord dev shop
        actord call Counter/alice add amount=2

    Or serve one file as it is:

        actord serve examples/account.py

    Every option can stand in [bold]actord.toml[/bold], in the environment (ACTORD_PORT; any
    key as ACTORD_SECTION_KEY) and on the command line: the later one wins.
    [bold]configs/default.toml[/bold] in the source explains each of them.

    Exit codes:
        0   all went well
        1   the call was answered with an error, the server was ended by force, or damage was found
        2   the command line is wrong
        69  the server can't be reached
        75  somebody else uses the address or the data directory
        78  the configuration or the program can't work
    """


def main() -> None:
    """The entry point of the ``actord`` command."""
    try:
        app()
    except StartError as error:
        print(f"actord: {error}", file=sys.stderr)
        sys.exit(error.exit)


if __name__ == "__main__":
    main()
