"""``actord check``: load the program as a worker would, and say what is in it."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from actord.server.commands.serve import AppArgument, ConfigOption
from actord.server.config import resolve
from actord.server.exits import CONFIG, StartError


def check(
    app: AppArgument = None,
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")] = False,
) -> None:
    """Load a program and list its actor types, methods and signatures.

    Examples:

        actord check examples/account.py
        actord check shop --json

    What can't work is refused with exit code 78 and a message that says why:
    a program that does not load, a type without a class, an unknown option.
    """
    from actord.shards.registry import ProgramError, load_program

    settings = resolve(app, config=None if config is None else str(config))
    try:
        program = load_program(settings.app).describe()
    except ProgramError as error:
        raise StartError(str(error), CONFIG) from None
    print(json.dumps(program, indent=2, ensure_ascii=False) if as_json else listing(program))


def listing(program: dict[str, Any]) -> str:
    """The program as lines of text."""
    lines = [f"program {program['name']}"]
    for type_ in program["types"]:
        hidden = "" if type_["exposed"] else ", not reachable over HTTP"
        lines += ["", f"actor {type_['type']}, bound as {type_['binding']}{hidden}"]
        shown = [f"{method['name']}{method['signature']}" for method in type_["methods"]]
        for method, text in zip(type_["methods"], shown, strict=True):
            summary = (method.get("doc") or "").strip().partition("\n")[0]
            lines.append(f"  {text}" + (f"\n      {summary}" if summary else ""))
        if not shown:
            lines.append("  no public methods")
    lines += ["", "front door" if program["front_door"] else "no front door: actors answer under /actors/ alone"]
    lines += [f"  {route['method']} {route['path']}" for route in program["routes"]]
    return "\n".join(lines)
