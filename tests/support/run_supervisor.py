"""A supervisor over fake children: ``run_supervisor.py SETTINGS FRONT WORKER EVENTS``, JSON and two behaviours."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
from actord import logs
from actord.server.exits import StartError
from actord.server.supervisor import run
from actord.settings import Settings

FAKE = Path(__file__).with_name("fake_child.py")


def main(words: list[str]) -> int:
    settings = msgspec.json.decode(words[0], type=Settings)
    logs.configure("debug", settings.log.format, process="supervisor")
    front, worker = ((sys.executable, "-P", str(FAKE), behaviour, words[3]) for behaviour in words[1:3])
    try:
        return run(settings, front=front, worker=worker)
    except StartError as error:
        print(f"actord: {error}", file=sys.stderr)
        return error.exit


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
