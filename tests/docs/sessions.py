"""Runs the ``console`` blocks of a page as the reader would: one folder, one shell, the commands in their order.

1. A command that serves (``make serve``, ``actord serve``, ``actord dev``) goes on in the background until ``^C`` or
   the next one that serves; what it says is compared as well. ``make`` is replaced by what the Makefile runs.
   Our command alone runs in a process that is warm (see ``tests.support.warm``), everything else in bash.
2. Port 8000 of the page is a free port here. Dates, durations, identities and the like are no part of the comparison.
3. In an expected output ``...`` stands for anything within a line, and alone on a line for any lines.
"""

from __future__ import annotations

import os
import re
import select
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import ROOT, Block, blocks
from tests.support import warm

PATIENCE_SECONDS = 60
ECHO_EXIT = '; echo "exit code $?"'
BIN = Path(sys.executable).parent
# Both sides pass through these.
_VARIABLE = (
    (r"\r", ""),
    (r"^date: .*$", "date: DATE"),
    (r"dur=[0-9.]+", "dur=N"),
    (r"with \d+ workers?", "with N workers"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID"),
    (r"(\d{4}-\d\d-\d\d[T ])?\d\d:\d\d:\d\d(\.\d+)?Z?", "TIME"),
    (r"\bpid[ =:]\d+", "pid N"),
    (r"/home/you\b", "HOME"),
    (r"in \d+\.\d+s\b", "in N s"),
    (r"[ \t]+$", ""),
)


class Session:
    """One page's shell. ``close`` ends the server that is still running."""

    def __init__(self, page: Path, folder: Path) -> None:
        self.page = page
        self.home = folder
        self.cwd = folder
        self.port = 0
        self.server: subprocess.Popen[bytes] | warm.Running | None = None
        self._said = folder / ".server-output"
        self._heard = 0
        (folder / ".curlrc").write_text("silent\nshow-error\n")  # as on a terminal: no progress meter
        (folder / "examples").symlink_to(ROOT / "examples")
        for block in blocks(page):
            if block.directive == "file":
                path = folder / block.value
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("a") as file:
                    file.write(block.text)

    def run(self) -> None:
        """Every console block of the page; AssertionError where an output differs."""
        for block in blocks(self.page, "console"):
            if block.directive == "by hand":
                continue
            for command, expected in commands(block):
                self._compare(block, command, expected, self._output(command))

    def close(self) -> None:
        if self.server is not None:
            self.server.kill()
            self.server.wait()
            assert self.server.stdout is not None
            self.server.stdout.close()

    # -- one command

    def _output(self, command: str) -> str:
        if command == "^C":
            return self._stop()
        if serves(command):
            return self._serve(command)
        command = command.replace(":8000", f":{self.port}")
        words = command.removesuffix(ECHO_EXIT)
        if plain(words):
            said = self.home / ".said"
            said.unlink(missing_ok=True)
            environ = self._environment()
            given = shlex.split(words)[1:]
            code = warm.run(given, str(self.cwd), environ, str(said), str(said), PATIENCE_SECONDS)
            return said.read_text() + (f"exit code {code}\n" if words != command else "")
        script = f"{command}\nstatus=$?\npwd > {self.home}/.cwd\nexit $status\n"
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=self.cwd,
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE_SECONDS,
        )
        self.cwd = Path((self.home / ".cwd").read_text().strip())
        return done.stdout

    def _serve(self, command: str) -> str:
        self.close()
        self._said.write_text("")
        environ = self._environment("--uds" in command)
        if plain(command):
            words = shlex.split(command)[1:]
            self.server = warm.Running(warm.actord, words, environ, cwd=str(self.cwd), err=str(self._said))
        else:
            with self._said.open("ab") as said:
                self.server = subprocess.Popen(
                    ["bash", "-c", f"exec {expand(command)}"],
                    cwd=self.cwd,
                    env=environ,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=said,
                )
        assert self.server.stdout is not None
        poll = select.poll()
        poll.register(self.server.stdout, select.POLLIN)
        url = self.server.stdout.readline().decode().strip() if poll.poll(PATIENCE_SECONDS * 1000) else ""
        if url.startswith("http"):
            self.port = int(url.rpartition(":")[2])
        self._heard = 0
        return self._news()

    def _stop(self) -> str:
        assert self.server is not None, f"{self.page.name}: ^C, but nothing runs"
        self.server.send_signal(signal.SIGINT)
        self.server.wait(PATIENCE_SECONDS)
        self.close()
        self.server = None
        return self._news()

    def _news(self) -> str:
        """What the server has said since the last look."""
        text = self._said.read_text()
        news, self._heard = text[self._heard :], len(text)
        return news

    def _environment(self, uds: bool = False) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("ACTORD_")}
        ours = {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "COLUMNS": "80",
            "ACTORD_URL": f"http://127.0.0.1:{self.port}",
            "ACTORD_WORKERS": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTEST_ADDOPTS": "-p no:cacheprovider",
        }
        return kept | ours | ({} if uds else {"ACTORD_PORT": "0"})

    def _compare(self, block: Block, command: str, expected: str, actual: str) -> None:
        actual = actual.replace(str(self.home), "/home/you").replace(f":{self.port}", ":8000")
        assert fits(expected, actual), f"{block}: `{command}` shows\n{expected}\nbut it says\n{actual}"


def commands(block: Block) -> list[tuple[str, str]]:
    """The commands of a console block, each with the output that the page shows for it."""
    found: list[tuple[str, list[str]]] = []
    for line in block.text.splitlines():
        if line == "^C":
            found.append(("^C", []))
        elif line.startswith("$ "):
            found.append((line[2:], []))
        elif line.startswith("> ") and found and not found[-1][1]:
            found[-1] = (f"{found[-1][0]}\n{line[2:]}", [])
        else:
            assert found, f"{block}: output without a command"
            found[-1][1].append(line)
    return [(command, "\n".join(lines)) for command, lines in found]


def plain(command: str) -> bool:
    """Whether it is our command alone, with nothing for a shell to do."""
    return command.startswith("actord ") and re.search(r"[;|&<>$`*?~#\\\n]", command) is None


def serves(command: str) -> bool:
    return re.fullmatch(r"make serve|actord (serve|dev)\b(?!.*--help)[^;|&]*", command) is not None


def expand(command: str) -> str:
    """``make serve`` as what the Makefile runs, without its installation."""
    return recipe("serve") if command == "make serve" else command


def recipe(target: str) -> str:
    """The commands of a Makefile target, with our own Python's folder in the place of the project's environment."""
    installed = [f"--old-file=.venv/.installed-{what}" for what in ("dev", "bench")]
    dry = subprocess.run(
        ["make", "--no-print-directory", "-n", *installed, target],
        cwd=ROOT,
        text=True,
        capture_output=True,
        check=True,
    )
    return dry.stdout.strip().replace(".venv/bin/", f"{BIN}/")


def normal(text: str) -> str:
    for what, instead in _VARIABLE:
        text = re.sub(what, instead, text, flags=re.MULTILINE | re.IGNORECASE)
    return text.strip()


def fits(expected: str, actual: str) -> bool:
    """Whether an output is what the page shows."""
    return re.fullmatch(_pattern(normal(expected)), f"\n{normal(actual)}", re.DOTALL) is not None


def _pattern(expected: str) -> str:
    lines = []
    for line in expected.split("\n"):
        whole = line.strip() == "..."
        lines.append(r"(?:\n.*)?" if whole else "\n" + "[^\n]*".join(re.escape(part) for part in line.split("...")))
    return "".join(lines)
