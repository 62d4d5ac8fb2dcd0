"""``actord openapi``: the program as an OpenAPI document, without a server."""

from __future__ import annotations

import json

from actord.server.commands.serve import AppArgument, ConfigOption
from actord.server.config import resolve
from actord.server.exits import CONFIG, StartError


def openapi(app: AppArgument = None, config: ConfigOption = None) -> None:
    """Print what a server answers to GET /-/openapi.json.

    Examples:

        actord openapi examples/account.py
        actord openapi shop > openapi.json

    It describes types, methods, arguments and results from their annotations,
    as OpenAPI 3.1. Exit code 78 when the program can't be loaded.
    """
    from actord.shards.openapi import document
    from actord.shards.registry import ProgramError, load_program

    settings = resolve(app, config=None if config is None else str(config))
    try:
        program = load_program(settings.app)
    except ProgramError as error:
        raise StartError(str(error), CONFIG) from None
    print(json.dumps(json.loads(document(program)), indent=2, ensure_ascii=False))
