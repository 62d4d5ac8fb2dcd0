"""A changed program is loaded here first, in a process of its own, so that one that doesn't load replaces nothing.

``python -B -m actord.shards.trial APP``, with the ``App`` as JSON. It says ``loaded`` on standard output, or what is
wrong, with a traceback on standard error. A program that ends the process says nothing. What the program itself prints
is left out: the worker that loads it next prints it.
"""

from __future__ import annotations

import os
import sys
import traceback

import msgspec
from actord.settings import App
from actord.shards.registry import ProgramError, load_program

LOADED = b"loaded"


def main(app: str) -> None:
    answer = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        load_program(msgspec.json.decode(app, type=App))
    except ProgramError as error:
        if error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
        os.write(answer, str(error).encode())
    else:
        os.write(answer, LOADED)


if __name__ == "__main__":
    main(sys.argv[1])
