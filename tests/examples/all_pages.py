"""The examples with pages in one program, so that one server is enough for their tests: ``/counter`` and so on."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from actord import Env, Request, Response, StatefulActor

NAMES = ("chat", "counter", "editor", "ticker", "tictactoe")

for _name in NAMES:
    sys.path.insert(0, str(Path(__file__).parent.parent.parent / "examples" / _name))
    for _key, _value in vars(import_module(_name)).items():
        if isinstance(_value, type) and issubclass(_value, StatefulActor):
            globals()[_key] = _value


async def fetch(request: Request, env: Env) -> Response:
    name = request.path.strip("/")
    if name not in NAMES:
        return Response.text("not found", status=404)
    response: Response = await sys.modules[name].fetch(Request("GET", "/"), env)
    return response
