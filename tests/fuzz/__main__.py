"""``python -m tests.fuzz TARGET --seconds N``: see README.md."""

from __future__ import annotations

import argparse
import random
import sys

from tests.fuzz import engine

NAMES = ("http", "chunks", "route", "frames", "intake", "direct", "codec", "json", "arguments")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("target", choices=[*NAMES, "all"])
    parser.add_argument("--seconds", type=float, default=10.0, help="for each target")
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, printed")
    parser.add_argument("--engine", choices=("auto", "atheris", "lot"), default="auto")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 31) if options.seed is None else options.seed
    guided = options.engine == "atheris" or (options.engine == "auto" and engine.has_atheris())
    if options.target == "all" and guided:
        parser.error("atheris runs one target for each process")
    if guided:
        print(f"{options.target}: atheris, seed {seed}", flush=True)
        engine.run_atheris(options.target, options.seconds, seed)
    if options.engine == "auto":
        print("atheris is not installed: mutations of the seeds by lot, without coverage", file=sys.stderr)
    for name in NAMES if options.target == "all" else (options.target,):
        count = engine.run_by_lot(name, options.seconds, seed)
        print(f"{name}: {count} inputs by lot, seed {seed}, no promise broken", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
