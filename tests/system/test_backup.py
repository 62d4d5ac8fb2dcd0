"""``actord backup`` of a real server under load: nobody's money is lost in what is restored; refusals are one line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path

from actord.server.admin import AdminClient

from tests.examples.running import EXAMPLES
from tests.examples.test_transfer import ACCOUNTS, CLIENTS, OPENED, Transfers, audit
from tests.support.command import actord
from tests.support.fixtures import Serve
from tests.support.server import Server

SETTINGS = {"server.workers": 2, "storage.shards": 4, "storage.checkpoint_wal": 65536}


async def under_load(server: Server, folder: Path) -> list[tuple[Path, set[str], Transfers]]:
    """Two backups, and the transfers that had been answered before each began."""
    transfers = Transfers(server.port)
    clients = [asyncio.create_task(transfers.client(n)) for n in range(CLIENTS)]
    taken: list[tuple[Path, set[str], Transfers]] = []
    words: list[str | Path] = ["--data-dir", server.data_dir, "--json"]
    try:
        for name in ("first", "second"):
            await transfers.successes(60)
            answered = set(transfers.done)
            done = await asyncio.to_thread(actord, "backup", folder / name, *words)
            assert done.returncode == 0, done.stderr
            document = json.loads(done.stdout)
            assert [at["shard"] for at in document["shards"]] == [0, 1, 2, 3]
            assert document["held_ms"] > 0
            taken.append((folder / name, answered, transfers))
            words += ["--base", folder / name]
    finally:
        transfers.stop = True
        await asyncio.gather(*clients)
    return taken


def test_what_is_restored_from_a_backup_under_load_has_every_answer_and_all_the_money(
    serve: Serve, tmp_path: Path
) -> None:
    server = serve(EXAMPLES / "transfer.py", settings=SETTINGS)
    for name in ACCOUNTS:
        assert server.result("Account", name, "open", OPENED) == OPENED
    taken = asyncio.run(under_load(server, tmp_path))
    assert server.unexpected() == []
    server.close()
    for number, (folder, answered, transfers) in enumerate(taken):
        assert actord("verify", folder, "--deep").returncode == 0
        target = tmp_path / f"restored-{number}"
        assert actord("restore", folder, target).returncode == 0
        restored = serve(EXAMPLES / "transfer.py", data_dir=target, settings={"server.workers": 2})
        transfers.done = answered
        audit(restored, transfers)
        assert restored.unexpected() == []
        restored.close()


def test_a_worker_that_is_lost_while_files_are_copied_ends_the_backup_and_nothing_else(serve: Serve) -> None:
    server = serve(EXAMPLES / "transfer.py", settings=SETTINGS)
    server.result("Account", "alice", "open", 7)
    with AdminClient(str(server.data_dir)) as admin:
        begun = admin.have_done("backup.begin", on_progress=lambda words: None, patience=30)
        assert admin.ask("backup.keep", id=begun["id"]) == [True, True]
        os.kill(server.worker_of(0), signal.SIGKILL)
        server.wait_log("worker-0 is ready")
        assert sorted(admin.ask("backup.end", id=begun["id"])) == [False, True]
        again = admin.have_done("backup.begin", on_progress=lambda words: None, patience=30)
        assert admin.ask("backup.end", id=again["id"]) == [True, True]
    assert server.result("Account", "alice", "balance") == 7


def test_other_backups_and_directories_in_use_are_refused_in_one_line(serve: Serve, tmp_path: Path) -> None:
    server = serve(EXAMPLES / "transfer.py", settings=SETTINGS)
    server.result("Account", "alice", "open", 7)
    assert actord("backup", tmp_path / "one", "--data-dir", server.data_dir).returncode == 0
    for words, code, why in [
        (["backup", tmp_path / "one", "--data-dir", server.data_dir], 78, "there already"),
        (["backup", server.data_dir / "x", "--data-dir", server.data_dir], 78, "inside"),
        (["backup", tmp_path / "two", "--data-dir", server.data_dir, "--base", tmp_path], 78, "no backup"),
        (["backup", tmp_path / "two", "--data-dir", tmp_path / "none"], 78, "can't be read"),
        (["restore", tmp_path / "one", server.data_dir], 78, "not empty"),
        (["restore", tmp_path, tmp_path / "new"], 78, "no backup"),
        (["verify", server.data_dir], 78, "no backup"),
        (["restore", tmp_path / "one"], 2, "DATA_DIR"),
    ]:
        done = actord(*words)
        assert (done.returncode, why in done.stderr, done.stdout) == (code, True, ""), done
    assert server.unexpected() == []
    damaged = tmp_path / "one" / "manifest.json"
    damaged.chmod(0o600)
    damaged.write_bytes(damaged.read_bytes().replace(b"crc32", b"crc31"))
    for words in (["verify", tmp_path / "one"], ["restore", tmp_path / "one", tmp_path / "new"]):
        done = actord(*words)
        assert (done.returncode, "manifest.json" in done.stdout + done.stderr) == (1, True), done
    server.stop()
    stopped = json.loads(actord("backup", tmp_path / "two", "--data-dir", server.data_dir, "--json").stdout)
    assert (stopped["held_ms"], len(stopped["shards"])) == (None, 4)
