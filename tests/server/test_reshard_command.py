"""``actord reshard`` as a person runs it: refusals, kill -9 in the middle, and a server on the result."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
from actord.shards.slots import shard_of_slot, slot_of, slot_range
from actord.storage import datadir
from actord.storage.api import Batch
from actord.storage.sqlite import SqliteStore

from tests.support.command import CLEAN, COMMAND, actord
from tests.support.processes import PATIENCE_SECONDS
from tests.support.server import Server

ROOT = Path(__file__).parent.parent.parent
NAMES = 2_000


def filled(path: Path) -> None:
    """Two shards with some megabytes: long enough to be killed in the middle."""
    data = datadir.open_data_dir(str(path), shards=2, ballast=0)
    for number in range(2):
        store = SqliteStore.open(
            data.shard_path(number),
            shard=number,
            identity=data.identity,
            slots=slot_range(number, 2),
            checkpoint_wal=1 << 22,
            page_cache=1 << 24,
        )
        batch = Batch(1)
        for n in range(NAMES):
            slot = slot_of("Account", f"a{n}")
            if shard_of_slot(slot, 2) == number:
                id_ = store.next_actor_id()
                batch.actors.append((id_, slot, "Account", f"a{n}"))
                batch.kv[id_] = {"balance": b"\x07", "more": bytes(2_000)}
        store.write(batch)
        store.close()
    data.close()


def test_killed_in_the_middle_it_goes_on_and_a_server_has_every_balance(tmp_path: Path) -> None:
    path = tmp_path / "data"
    filled(path)
    killed = subprocess.Popen([*COMMAND, "reshard", str(path), "--shards", "5"], env=CLEAN)
    until = time.monotonic() + PATIENCE_SECONDS
    while not list(path.glob("reshard/*.part")) and killed.poll() is None and time.monotonic() < until:
        pass
    killed.kill()
    killed.wait()
    assert (path / "reshard.json").exists()
    refused = actord("serve", ROOT / "examples" / "account.py", "--data-dir", path, "--port", "0")
    assert refused.returncode == 78
    assert "actord reshard" in refused.stderr
    done = actord("reshard", path, "--shards", "5", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) | {"rows": 0} == {"before": 2, "after": 5, "actors": NAMES, "rows": 0}
    assert actord("doctor", path).returncode == 0
    with Server(ROOT / "examples" / "account.py", path, settings={"server.workers": 3}) as server:
        balances = {server.result("Account", f"a{n}", "balance") for n in range(0, NAMES, 97)}
        assert balances == {7}
        busy = actord("reshard", path, "--shards", "2")
        assert (busy.returncode, "in use" in busy.stderr) == (75, True)


@pytest.mark.parametrize(
    ("words", "code"),
    [(["--shards", "0"], 2), (["--shards", "2", "--cancel"], 2), ([], 2), (["--shards", "2"], 78), (["--cancel"], 78)],
)
def test_wrong_input_is_one_clear_line(words: list[str], code: int, tmp_path: Path) -> None:
    done = actord("reshard", tmp_path, *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr
