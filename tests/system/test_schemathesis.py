"""A public tool that knows only the OpenAPI document calls a real server, as it allows and as it does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LONG = bool(os.environ.get("ACTORD_TEST_LONG"))

# No document says what a program refuses by itself: its routes, and an amount below 0.
CONFIG = """\
[[operations]]
include-tag = "front door"
checks.unsupported_method.enabled = false
checks.positive_data_acceptance.enabled = false

[[operations]]
include-path-regex = "/actors/Account/.*/(debit|deposit)"
checks.positive_data_acceptance.enabled = false
"""


@pytest.mark.parametrize("example", ["account.py", "cart.py"])
def test_a_client_of_the_document_sees_what_is_documented_and_no_fault(
    serve: Any, tmp_path: Path, example: str
) -> None:
    server = serve(ROOT / "examples" / example)
    config = tmp_path / "schemathesis.toml"
    config.write_text(CONFIG if example == "account.py" else "")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(config)),
            *("run", f"http://127.0.0.1:{server.port}/-/openapi.json"),
            *("--max-examples", "1000" if LONG else "12", "--seed", "1"),
            *("--continue-on-failure", "--no-color"),
        ],
        cwd=tmp_path,
        env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.support.schemathesis_hooks", "PYTHONPATH": path()},
        capture_output=True,
        text=True,
        timeout=1200 if LONG else 200,  # a busy machine takes its time
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Tested: " in done.stdout
    assert server.unexpected() == []


def path() -> str:
    return os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
