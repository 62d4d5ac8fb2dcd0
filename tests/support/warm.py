"""The real command in a process of its own that need not import anything first: a fork of one that has.

1. What runs is ``main`` of the command line, with arguments, environment, folder and both streams of its own; its exit
   code is a real process's. Only the start of the interpreter is left out: 0.2 s of CPU, many hundred times.
2. The forks come from a process that does nothing else (``multiprocessing``'s fork server): no thread and no lock of
   the tests is in them.

What is about the start itself (``-m``, what is imported, signals from a terminal), and what goes on, takes ``COMMAND``.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import sys
from collections.abc import Mapping
from multiprocessing.context import ForkServerContext


@functools.cache
def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    # What the commands import when they are called is loaded as well.
    context.set_forkserver_preload(
        [
            "actord.server.cli",
            "actord.server.admin",
            "actord.server.commands.actor_sql",
            "actord.server.commands.inspect_view",
            "actord.shards.registry",
            "actord.storage.look_actor",
            "actord.storage.sqlite",
            __name__,
        ]
    )
    return context


def run(words: list[str], cwd: str, environ: Mapping[str, str], out: str, err: str, patience: float) -> int:
    """Run the command to its end, its streams in the files ``out`` and ``err`` (which may be one file); its exit code.

    TimeoutError when it has not ended after ``patience`` seconds; it is killed then.
    """
    process = _context().Process(target=_command, args=(words, cwd, dict(environ), out, err))
    process.start()
    process.join(patience)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise TimeoutError(f"actord {' '.join(words)} has not ended after {patience} s")
    code = process.exitcode
    process.close()
    return code


def _command(words: list[str], cwd: str, environ: dict[str, str], out: str, err: str) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environ)
    for number, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, number)
        os.close(file)
    from actord.server.cli import main

    sys.argv = ["actord", *words]
    sys.path[:] = [entry for entry in sys.path if entry]  # as with -P
    main()
