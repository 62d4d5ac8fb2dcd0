"""``actord`` with the workers of ``worker_variant``; everything else is the real thing."""

from __future__ import annotations

import sys
from pathlib import Path

from actord.server import cli, supervisor

if __name__ == "__main__":
    run = supervisor.run
    worker = (sys.executable, "-P", str(Path(__file__).with_name("worker_variant.py")))
    supervisor.run = lambda settings, **options: run(settings, worker=worker, **options)
    cli.main()
