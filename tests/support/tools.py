"""Programs of other people that tests run."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path


def found(name: str) -> str | None:
    """Where a command is: beside this Python, which `make test` runs without its folder in PATH, or in PATH."""
    return shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}")
