"""The workload of ``worker_workload`` over turns that write SQL, keys and the alarm together."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.faults import worker_workload  # noqa: E402

worker_workload.PROGRAM = ROOT / "tests" / "system" / "programs" / "sql_ledger.py"

if __name__ == "__main__":
    worker_workload.main()
