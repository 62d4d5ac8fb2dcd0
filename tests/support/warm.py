"""The real command in a process of its own that need not import anything first: a fork of one that has.

1. What runs is ``main`` of the command line, with arguments, environment, folder and both streams of its own; its exit
   code is a real process's. Only the start of the interpreter is left out: 0.2 s of CPU, many hundred times.
2. The forks come from a process that does nothing else (``multiprocessing``'s fork server): no thread and no lock of
   the tests is in them.
3. What a server starts itself, workers and fronts, are interpreters of their own, as always.

What is about the start itself (``-m``, what is imported, signals from a terminal) takes ``COMMAND``.
"""

from __future__ import annotations

import functools
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection, wait
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
            "actord.server.supervisor",
            "actord.shards.registry",
            "actord.storage.look_actor",
            "actord.storage.sqlite",
            "typer._adapters",  # newer ones convert arguments with pydantic
            "typer.rich_utils",
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


class Running:
    """A process that goes on, in a session of its own, with the interface of ``Popen`` as far as tests use it."""

    def __init__(
        self,
        main: Callable[[list[str]], int | None],
        words: list[str],
        environ: Mapping[str, str],
        *,
        cwd: str = "",
        err: str = "",
    ) -> None:
        """``main``: ``actord`` or another function. ``err``: a file for its words, in the place of ``stderr``."""
        out, out_end = os.pipe()
        said, said_end = os.pipe()
        ends = Connection(out_end, readable=False), Connection(said_end, readable=False)
        self.stdout, self.stderr = io.BufferedReader(io.FileIO(out)), io.BufferedReader(io.FileIO(said))
        given = main, words, cwd or os.getcwd(), dict(environ), *ends, err
        self._process = _context().Process(target=_going_on, args=given, daemon=True)
        self._looking = threading.Lock()
        self._process.start()
        for end in ends:
            end.close()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        with self._looking:  # its exit code can be read once
            return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if not wait([self._process.sentinel], timeout):
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        code = self.returncode
        assert code is not None
        return code

    def communicate(self, timeout: float | None = None) -> tuple[bytes, bytes]:
        """What is left in both streams, when nobody holds them any more, and it has ended."""
        said = [b"", b""]

        def read(index: int, stream: io.BufferedReader) -> None:
            said[index] = stream.read()

        readers = [
            threading.Thread(target=read, args=(index, stream), daemon=True)
            for index, stream in enumerate((self.stdout, self.stderr))
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join(timeout)
            if reader.is_alive():
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        self.wait(timeout)
        return said[0], said[1]

    def send_signal(self, number: signal.Signals) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _going_on(
    main: Callable[[list[str]], int | None],
    words: list[str],
    cwd: str,
    environ: dict[str, str],
    out: Connection,
    said: Connection,
    err: str,
) -> None:
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environ)
    os.dup2(out.fileno(), 1)
    os.dup2(said.fileno(), 2)
    out.close()
    said.close()
    if err:
        _say_into(2, err)
    sys.exit(main(words))


def _command(words: list[str], cwd: str, environ: dict[str, str], out: str, err: str) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environ)
    _say_into(1, out)
    _say_into(2, err)
    actord(words)


def _say_into(number: int, path: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(file, number)
    os.close(file)


def actord(words: list[str]) -> None:
    """The command."""
    from actord.server import cli

    sys.argv = ["actord", *words]
    sys.path[:] = [entry for entry in sys.path if entry]  # as with -P
    cli.main()


def actord_with(worker: str, words: list[str]) -> None:
    """The command with a script in the place of the server's worker."""
    from actord.server import supervisor

    run = supervisor.run
    supervisor.run = lambda settings, **options: run(settings, worker=(sys.executable, "-P", worker), **options)
    actord(words)
