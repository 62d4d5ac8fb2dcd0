"""A real server on a damaged directory: the damaged shard refuses loudly, the other one serves, the doctor explains."""

from __future__ import annotations

import json
from pathlib import Path

from actord.shards.slots import slot_of, slot_range

from tests.support.command import actord
from tests.support.server import Server

PROGRAM = "ledger.py"


def names_of(shard: int, count: int) -> list[str]:
    found = (f"n{i}" for i in range(1_000) if slot_of("Ledger", f"n{i}") in slot_range(shard, 2))
    return [next(found) for _ in range(count)]


def test_a_damaged_shard_refuses_loudly_and_the_other_serves(tmp_path: Path) -> None:
    data = tmp_path / "data"
    server = Server(PROGRAM, data, settings={"server.workers": 2, "storage.ballast": 0})
    here, there = names_of(0, 12), names_of(1, 12)
    try:
        server.start()
        for number, name in enumerate([*here, *there]):
            assert server.call("Ledger", name, "deposit", f"id-{number}", 1).status == 200
        running = actord("doctor", data)
        assert (running.returncode, "not examined. A server uses" in running.stdout) == (0, True)
        server.kill()
        killed = actord("doctor", data)
        assert killed.returncode == 0, "a crash is no damage"
        assert "There was no clean stop" in killed.stdout

        log = data / "shards" / "0000.db-wal"
        content = bytearray(log.read_bytes())
        content[32 + 2 * 4120 + 500] ^= 4  # in the middle: whole commits stand behind it
        log.write_bytes(content)
        told = actord("doctor", data)
        assert told.returncode == 1, told
        assert "DAMAGE shards/0000.db-wal: The log is damaged" in told.stdout
        as_json = actord("doctor", "--json", data)
        assert as_json.returncode == 1
        document = json.loads(as_json.stdout)
        assert document["healthy"] is False
        assert [found["file"] for found in document["findings"] if found["level"] == "damage"] == ["shards/0000.db-wal"]

        since = server.mark()
        server.start()
        server.wait_log("shard 0 is damaged and is not served", since=since)
        for name in here:
            reply = server.call("Ledger", name, "statement")
            assert (reply.status, reply.json()["name"]) == (503, "ActorUnavailable")
        for name in there:
            assert server.call("Ledger", name, "statement").status == 200
        assert server.stop() == 0

        content[32 + 2 * 4120 + 500] ^= 4
        log.write_bytes(content)
        server.start()
        for name in [*here, *there]:
            assert server.result("Ledger", name, "statement")["count"] == 1
        assert server.stop() == 0
        healthy = actord("doctor", "--deep", data)
        assert (healthy.returncode, healthy.stdout.splitlines()[-1]) == (0, "healthy")
    finally:
        server.close()


def test_what_is_no_data_directory_is_said_to_be_none(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere", Path(__file__)):
        done = actord("doctor", path)
        assert done.returncode == 78, done
        assert done.stderr.startswith("actord: ")
        assert "Traceback" not in done.stderr
