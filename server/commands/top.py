"""``actord top``: what a running server does, as it does it."""

from __future__ import annotations

import json
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from actord.server.commands.running import client
from actord.server.commands.serve import AppArgument, DataDirOption
from actord.server.commands.top_numbers import Look, view
from actord.server.exits import StartError

if TYPE_CHECKING:
    from actord.server.admin import AdminClient

QUIT = ("q", "Q", "\x03", "\x04")


def top(
    app: AppArgument = None,
    interval: Annotated[
        float, typer.Option(min=0.1, max=3600, metavar="SECONDS", help="How long each look takes.")
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="One look, then leave; needs no terminal.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="With --once: one JSON object, for programs.")] = False,
    data_dir: DataDirOption = None,
) -> None:
    """Show what a running server does: rates, latencies, processes, methods, the busiest actors. q ends it.

    Examples:

        actord top
        actord top --data-dir /var/lib/shop
        actord top --once --json --interval 5 | jq .calls

    The server is found by its data directory. Its figures are those of /-/metrics; the actors are from a sample.
    """
    if as_json and not once:
        raise typer.BadParameter("--json is for one look: add --once.")
    if once:
        with client(app, data_dir) as server:
            found = _look_twice(server, interval)
        if as_json:
            print(json.dumps(found, ensure_ascii=False))
        else:
            from actord.server.commands.top_view import text

            print(text(found))
        return
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise typer.BadParameter("top is for a terminal: add --once (and --json for programs).")
    _live(app, data_dir, interval)


def _look(server: AdminClient) -> tuple[float, Look]:
    [found] = server.ask("top")
    return time.monotonic(), found


def _look_twice(server: AdminClient, interval: float) -> dict[str, Any]:
    began, first = _look(server)
    time.sleep(interval)
    ended, second = _look(server)
    return view(first, second, ended - began)


def _live(app: str | None, data_dir: Path | None, interval: float) -> None:
    from actord.server.commands.top_view import Screen

    server: AdminClient | None = client(app, data_dir)  # a server that is not there ends it now, not later
    last: tuple[float, Look] | None = None
    with Screen() as screen, _keys() as key:
        screen.show(None, "measuring ...")
        while True:
            try:
                server = server or client(app, data_dir)
                now, found = _look(server)
                if last is not None:
                    screen.show(view(last[1], found, now - last[0]), "")
                last = now, found
            except StartError as error:  # it may be on its way back
                screen.show(None, f"{error} Trying again ...")
                if server is not None:
                    server.close()
                server = last = None
            if key(interval) in QUIT:
                break
    if server is not None:
        server.close()


@contextmanager
def _keys() -> Iterator[Any]:
    """A function that waits so many seconds for a key: the key, or "" when none was pressed."""
    fd = sys.stdin.fileno()
    kept = termios.tcgetattr(fd)

    def key(seconds: float) -> str:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([fd], [], [], left)[0]:
                pressed = sys.stdin.read(1)
                if pressed in (*QUIT, ""):
                    return pressed or "q"
        return ""

    tty.setcbreak(fd)
    try:
        yield key
    except KeyboardInterrupt:
        return
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, kept)
