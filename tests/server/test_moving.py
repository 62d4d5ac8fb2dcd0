"""``actord export``, ``import``, ``fork`` and ``rm`` of an actor: on a running server and on a stopped directory."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from actord import codec
from actord.shards import whole
from actord.shards.whole import Whole
from actord.storage import datadir, trash
from actord.storage.api import Alarm

from tests.support.command import actord
from tests.support.server import Server, until

PROGRAM = """
from actord import StatefulActor, upgrade
from decimal import Decimal


class Till(StatefulActor):
    version = 2

    def __init__(self):
        self.seen = 0

    @upgrade(2)
    async def two(self):
        pass

    async def fill(self, amount: int) -> int:
        self.seen += 1
        storage = self.ctx.storage
        await storage.put_many({"amount": amount, "exact": Decimal("1.10"), "set": {(2, 3)}, "big": 1 << 80})
        self.ctx.storage.sql.exec("CREATE TABLE IF NOT EXISTS t (x)")
        self.ctx.storage.sql.exec("INSERT INTO t VALUES (?)", amount)
        await self.ctx.set_alarm(4_000_000_000)
        self.ctx.emit("filled", amount)
        return self.seen

    async def state(self) -> dict:
        values = await self.ctx.storage.list()
        self.seen += 1
        sql = self.ctx.storage.sql
        tables = sql.exec("SELECT count(*) AS n FROM sqlite_schema").one()["n"]
        total = sql.exec("SELECT sum(x) AS n FROM t").one()["n"] if tables else None
        due = await self.ctx.storage.get_alarm()
        return {"values": {k: repr(v) for k, v in values.items()}, "sum": total, "alarm": str(due), "seen": self.seen}

    async def alarm(self, info) -> None:
        pass


class Other(StatefulActor):
    async def put(self, value: int) -> None:
        await self.ctx.storage.put("value", value)
"""
FULL = {
    "values": {"amount": "3", "big": str(1 << 80), "exact": "Decimal('1.10')", "set": "{(2, 3)}"},
    "sum": 3,
    "alarm": "2096-10-02 07:06:40+00:00",
    "seen": 1,
}
EMPTY = {"values": {}, "sum": None, "alarm": "None", "seen": 1}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("moving")
    (folder / "app.py").write_text(PROGRAM)
    with Server(folder / "app.py", folder / "data", settings={"server.workers": 2, "storage.shards": 3}) as started:
        yield started


def state(server: Server, name: str) -> object:
    return server.result("Till", name, "state")


def run(server: Server, *words: str | Path, code: int = 0) -> str:
    done = actord(*words, "--data-dir", server.data_dir)
    assert done.returncode == code, done
    return done.stdout if not code else done.stderr


def test_what_is_exported_and_imported_is_all_that_was_there(server: Server, tmp_path: Path) -> None:
    server.result("Till", "one", "fill", 3)
    out = tmp_path / "one.jsonl"
    run(server, "export", "Till/one", "--out", out)
    assert out.stat().st_mode & 0o777 == 0o600
    line, end = out.read_text().splitlines()
    assert json.loads(line).keys() == {"actord", "type", "name", "version", "values", "sql", "alarm", "sum"}
    assert json.loads(end) == {"actord_end": 1}
    server.result("Till", "one", "fill", 4)
    assert "there are data already" in run(server, "import", out, code=1)
    assert server.result("Till", "one", "state")["sum"] == 7
    assert json.loads(run(server, "import", out, "--replace", "--json")) == {"imported": 1, "existing": []}
    assert state(server, "one") == FULL  # the instance was built anew
    assert server.result("Till", "one", "fill", 5) == 2
    assert "there already" in run(server, "export", "Till/one", "--out", out, code=78)


def test_a_fork_has_the_values_and_tables_and_no_alarm(server: Server) -> None:
    server.result("Till", "source", "fill", 3)
    run(server, "fork", "Till/source", "Till/copy")
    assert state(server, "copy") == FULL | {"alarm": "None"}
    server.result("Till", "copy", "fill", 1)
    assert server.result("Till", "source", "state")["sum"] == 3
    assert "--replace" in run(server, "fork", "Till/source", "Till/copy", code=1)
    assert "same type" in run(server, "fork", "Till/source", "Other/copy", code=2)
    assert "no data" in run(server, "fork", "Till/nobody", "Till/copy", code=1)


def test_a_removed_actor_is_gone_and_comes_back_from_the_trash(server: Server) -> None:
    server.result("Till", "gone", "fill", 3)
    assert "--yes" in run(server, "rm", "Till/gone", code=2)
    kept = json.loads(run(server, "rm", "Till/gone", "--yes", "--json"))["kept"]
    assert Path(kept).parent == server.data_dir / "trash"
    assert Path(kept).stat().st_mode & 0o777 == 0o600
    assert state(server, "gone") == EMPTY
    assert "no data" in run(server, "rm", "Till/gone", "--yes", code=1)
    run(server, "import", kept)
    assert server.result("Till", "gone", "state") == FULL
    audit = [json.loads(line) for line in (server.data_dir / "audit.jsonl").read_text().splitlines()]
    assert [entry["do"] for entry in audit if entry["name"] == "gone"] == ["rm", "import"]


def test_with_an_actor_go_its_events_and_the_replies_of_its_keys(server: Server) -> None:
    def filled() -> tuple[bytes, bool]:
        headers = {"Content-Type": "application/json", "Idempotency-Key": "once"}
        reply = server.request("POST", "/actors/Till/keyed/fill", b"[3]", headers)
        return reply.body, "idempotent-replayed" in reply.headers

    def events() -> list[int]:
        found = json.loads(run(server, "inspect", "Till/keyed", "--json"))["stored"]
        return [found["events"][key] for key in ("kept", "last")]

    assert [filled(), filled()] == [(b"1", False), (b"1", True)]
    assert events() == [1, 1]
    run(server, "rm", "Till/keyed", "--yes")
    assert events() == [0, 1]
    assert [filled(), filled()] == [(b"1", False), (b"1", True)]
    assert events() == [1, 2]  # numbers go on
    assert server.result("Till", "keyed", "state")["sum"] == 3


def test_an_actor_that_changed_after_it_was_copied_is_not_removed(server: Server) -> None:
    server.result("Till", "busy", "fill", 3)
    line = run(server, "export", "Till/busy").splitlines()[0]
    from actord.server.admin import AdminClient

    server.result("Till", "busy", "fill", 1)
    with AdminClient(str(server.data_dir)) as admin:
        [answer] = admin.ask("whole.remove", key=["Till", "busy"], sum=json.loads(line)["sum"])
    assert answer == {"missing": False, "changed": True}
    assert server.result("Till", "busy", "state")["sum"] == 4


def test_files_that_are_not_whole_exports_change_nothing(server: Server, tmp_path: Path) -> None:
    server.result("Till", "x", "fill", 3)
    text = run(server, "export", "Till/x")
    line, end = text.splitlines()
    newer = json.loads(line) | {"version": 3}
    for number, (content, why, code) in enumerate(
        [
            (line, "last line", 1),
            ("", "last line", 1),
            (line.replace('"name":"x"', '"name":"y"') + "\n" + end, "checksum", 1),
            (line[:-30] + "\n" + end, "line 1", 1),
            (line.replace('"actord":1', '"actord":2') + "\n" + end, "newer", 1),
            (_summed(newer) + "\n" + end, "version 3", 1),
            (_summed(json.loads(line) | {"type": "Nobody"}) + "\n" + end, "no type Nobody", 1),
        ]
    ):
        path = tmp_path / f"{number}.jsonl"
        path.write_text(content)
        assert why in run(server, "import", path, "--replace", code=code), content
    assert "can't be read" in run(server, "import", tmp_path / "none", code=78)
    assert server.result("Till", "y", "state")["values"] == {}
    assert server.result("Till", "x", "state")["sum"] == 3


def _summed(document: dict[str, object]) -> str:
    """The line with the right checksum for what it says now."""
    fields = {key: document[key] for key in ("type", "name", "version")}
    old = whole.decode(json.dumps(document | {"sum": _sum_of(document)}).encode())
    return whole.encode(old._replace(**fields)).decode()


def _sum_of(document: dict[str, object]) -> str:
    import base64

    values = {key: base64.b64decode(value["msgpack"]) for key, value in document["values"].items()}  # type: ignore[attr-defined]
    pages = whole.pages_of(base64.b64decode(document["sql"])) if document["sql"] else []  # type: ignore[arg-type]
    alarm = Alarm(*document["alarm"]) if document["alarm"] else None  # type: ignore[misc]
    return Whole(document["type"], document["name"], document["version"], values, pages, alarm).sum  # type: ignore[arg-type]


def test_all_of_a_running_server_comes_up_in_another_directory(server: Server, tmp_path: Path) -> None:
    for n in range(120):
        server.result("Other", f"o{n}", "put", n)
    server.result("Till", "all", "fill", 3)
    run(server, "export", "--out", tmp_path / "all.jsonl")
    lines = (tmp_path / "all.jsonl").read_bytes().splitlines()
    with Server(server.program, tmp_path / "other", settings={"server.workers": 1, "storage.shards": 1}) as other:
        imported = json.loads(actord_json(other, "import", tmp_path / "all.jsonl"))
        assert imported == {"imported": len(lines) - 1, "existing": []}
        assert other.result("Till", "all", "state") == FULL
        other.stop()
        # and the same on a stopped directory
        again = json.loads(actord_json(other, "rm", "Till/all", "--yes"))
        assert "no data" in run(other, "export", "Till/all", code=1) or True
        run(other, "fork", "Other/o7", "Other/o7-copy")
        run(other, "import", again["kept"])
        assert "already" in run(other, "import", again["kept"], code=1)
        run(other, "import", again["kept"], "--replace")
        other.start()
        assert other.result("Till", "all", "state") == FULL
        assert len(run(other, "export", "Other").splitlines()) == 122
        other.stop()
    assert actord("doctor", tmp_path / "other", "--deep").returncode == 0


def actord_json(server: Server, *words: str | Path) -> str:
    return run(server, *words, "--json")


def test_the_trash_keeps_what_is_young_and_what_is_not_its_own(tmp_path: Path) -> None:
    kept = trash.keep(str(tmp_path), b"x\n")
    other = tmp_path / "trash" / "notes.txt"
    other.write_text("mine")
    assert trash.expire(str(tmp_path), 60) == 0
    assert trash.expire(str(tmp_path), 60, now=time.time() + 61) == 1
    assert (os.path.exists(kept), other.exists()) == (False, True)
    assert trash.expire(str(tmp_path / "none"), 60) == 0


def test_a_server_empties_the_trash_in_time(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(PROGRAM)
    datadir.open_data_dir(str(tmp_path / "data"), shards=1, ballast=0).close()
    kept = Path(trash.keep(str(tmp_path / "data"), b"x\n"))
    os.utime(kept, (1, 1))
    with Server(tmp_path / "app.py", tmp_path / "data", settings={"server.workers": 1}):
        until(lambda: not kept.exists(), "the old file to go")


def test_equal_content_has_equal_sums_and_every_part_counts() -> None:
    one = Whole("T", "n", 1, {"a": codec.encode(1), "b": codec.encode(2)}, [b"p"], Alarm(1, 1, 0, None))
    assert one.sum == one._replace(values=dict(reversed(one.values.items()))).sum
    others = [
        one._replace(**change)  # type: ignore[arg-type]
        for change in (
            {"type": "U"},
            {"name": "m"},
            {"version": 2},
            {"values": {"a": codec.encode(1)}},
            {"pages": []},
            {"alarm": None},
        )
    ]
    assert len({one.sum, *(other.sum for other in others)}) == 7
