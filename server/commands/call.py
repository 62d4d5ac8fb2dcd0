"""``actord call``: one method of one actor of a running server."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer
from actord.client_address import DEFAULT_URL
from actord.server.exits import FAILED

TokenFileOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Where the token is. Without it: ACTORD_TOKEN.", show_default=False),
]

_NAMED = re.compile(r"([^\W\d]\w*)=(.*)", re.DOTALL)


def call(
    actor: Annotated[str, typer.Argument(metavar="TYPE/NAME", help="The actor, as in Account/alice.")],
    method: Annotated[str, typer.Argument(metavar="METHOD", help="The method to call.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE | VALUE]...", help="Its arguments, all named or none.", show_default=False),
    ] = None,
    url: Annotated[
        str, typer.Option(envvar="ACTORD_URL", metavar="URL", help="The server: http://HOST:PORT or unix:PATH.")
    ] = DEFAULT_URL,
    timeout: Annotated[
        float, typer.Option(min=0.001, metavar="SECONDS", help="How long to wait for the reply.")
    ] = 60.0,
    token_file: TokenFileOption = None,
) -> None:
    """Call a method of an actor, and print its reply as JSON.

    Examples:

        actord call Account/alice debit amount=30
        actord call Account/alice debit 30
        actord call Room/lobby say text=hello private=true
        actord call Account/alice balance --url unix:/run/shop/http.sock

    A value that is JSON is sent as what it says (30, true, null, {}), and
    anything else as text. To send 30 as text, quote it twice: code='"30"'.
    An error reply is told in words on standard error, with exit code 1.
    """
    type_, slash, name = actor.partition("/")
    if not (type_ and slash and name):
        raise typer.BadParameter(f"{actor!r} is not TYPE/NAME, as in Account/alice.", param_hint="TYPE/NAME")
    body = json.dumps(parse_arguments(arguments or [])).encode()
    path = "/actors/" + "/".join(quote(part, safe="") for part in (type_, name, method))
    from actord.server.commands.posting import post  # loads http.client, which no other command needs

    status, reply = post(url, path, body, timeout, token_file)
    if status < 400:
        sys.stdout.write(_shown(reply) + "\n")
        return
    print(f"actord: {in_words(status, reply)}", file=sys.stderr)
    raise typer.Exit(FAILED)


def parse_arguments(arguments: list[str]) -> dict[str, Any] | list[Any]:
    """Words of the command line as keyword arguments, or as positional ones. Raises ``typer.BadParameter``."""
    named = [_NAMED.fullmatch(word) for word in arguments]
    if not any(named):
        return [_value(word) for word in arguments]
    body: dict[str, Any] = {}
    for word, match in zip(arguments, named, strict=True):
        if match is None:
            raise typer.BadParameter(f"{word!r} has no name, but others have: name all arguments or none.")
        if match[1] in body:
            raise typer.BadParameter(f"{match[1]} is given twice.")
        body[match[1]] = _value(match[2])
    return body


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_constant)
    except ValueError:
        return text


def _no_constant(text: str) -> Any:
    raise ValueError(text)  # NaN and Infinity are no JSON: they are text


def in_words(status: int, reply: bytes) -> str:
    """An error reply as a sentence for a person."""
    try:
        problem = json.loads(reply)
        title = problem["title"]
    except (ValueError, TypeError, KeyError):
        text = reply.decode(errors="replace").strip()
        return f"the server answered {status}" + (f": {text[:500]}" if text else "")
    parts = [str(problem.get("name", "error"))]
    if "code" in problem:
        parts.append(f"code {problem['code']}")
    parts.append(f"status {status}")
    applied = {"no": "nothing was written", "yes": "its writes are stored", "unknown": "its writes may be stored"}
    if problem.get("applied") in applied:
        parts.append(applied[problem["applied"]])
    if problem.get("retryable"):
        wait = problem.get("retry_after")
        parts.append("it may be tried again" + (f" in {wait:g} s" if isinstance(wait, int | float) else ""))
    data = f"\ndata: {json.dumps(problem['data'], ensure_ascii=False)}" if "data" in problem else ""
    return f"{problem.get('detail') or title} ({', '.join(parts)}){data}"


def _shown(reply: bytes) -> str:
    text = reply.decode(errors="replace").strip()
    if not sys.stdout.isatty():
        return text
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text
