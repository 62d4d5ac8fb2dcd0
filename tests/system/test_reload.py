"""A reload under load loses nothing; one that can't work changes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import pty
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import actord
import pytest
from actord.server.admin import AdminClient
from actord.server.exits import StartError
from actord.shards.registry import ProgramError
from actord.shards.slots import shard_of_slot, slot_of
from actord.shards.worker import check_version

from tests.support.client import Client
from tests.support.deploys import SOURCE, Deployed, Guest, Load
from tests.support.event_source import EventSource
from tests.support.server import PATIENCE_SECONDS, Server, connect, ended, pidfd, read_replies, until

LONG = bool(os.environ.get("ACTORD_TEST_LONG"))
RELOADS = 20 if LONG else 3


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[Deployed]:
    made = Deployed(tmp_path)
    yield made
    made.close()


def test_reloads_under_load_lose_no_call_close_no_socket_and_do_nothing_twice(deployed: Deployed) -> None:
    asyncio.run(reloads_under_load(deployed))


async def reloads_under_load(deployed: Deployed) -> None:
    server = deployed.server
    fronts = server.children("front")
    guests = [Guest(server, room, f"{room}{number}") for room in ("a1", "b1", "b2") for number in range(2)]
    readers = [EventSource(server, "Account", name).wait_connected() for name in ("a", "b", "c")]
    load = Load(server.port)
    server.result("Account", "alarmed", "ring", "rang", 0.5)
    for number in range(2, RELOADS + 2):
        calls, heard, workers = load.calls, [len(guest.heard) for guest in guests], deployed.workers()
        deployed.version(number)
        for name in "abc":
            await asyncio.to_thread(server.result, "Account", name, "tell")
        if number % 2:
            since = server.mark()
            server.signal(signal.SIGHUP)
            await asyncio.to_thread(server.wait_log, "^reloaded$", since=since)
        else:
            done = await asyncio.to_thread(deployed.reload)
            assert done["workers"] == 2
        assert await asyncio.to_thread(deployed.versions) == {number}
        assert not deployed.workers() & workers

        def all_go_on(calls: int = calls, heard: list[int] = heard) -> bool:
            return load.calls > calls + 50 and all(len(g.heard) > was for g, was in zip(guests, heard, strict=True))

        await asyncio.to_thread(until, all_go_on, "clients and guests to go on")
    await load.end()
    for guest in guests:
        guest.leave()
    assert load.failed == []
    for guest in guests:
        guest.check()
    for reader in readers:
        assert [event.data for event in reader.wait(RELOADS)] == list(range(1, RELOADS + 1))
        assert reader.connections == 1
        reader.close()
    load.audit(server)
    until(lambda: server.result("Account", "alarmed", "marks") == {"rang": 1}, "the alarm")
    assert server.children("front") == fronts, "clients' connections are theirs"
    assert server.unexpected() == []
    assert server.stop() == 0


def refusal(deployed: Deployed) -> tuple[int, str]:
    with pytest.raises(StartError) as caught:
        deployed.reload()
    return caught.value.exit, str(caught.value)


def test_what_can_t_work_is_refused_and_the_old_program_goes_on(deployed: Deployed) -> None:
    server = deployed.server
    server.result("Account", "a", "add", "kept")
    before = deployed.workers()

    deployed.write("import nothing_of_this_name\n")
    assert refusal(deployed) == (
        78,
        "The reload was refused: app.py can't be imported: No module named 'nothing_of_this_name'. Is it installed in "
        f"{sys.prefix}? Nothing was changed.",
    )
    assert deployed.notified("READY=1")
    assert deployed.notified("RELOADING=1")
    status = deployed.notified("READY=1")[-1]
    assert status.startswith("STATUS=")
    assert "The reload was refused: app.py can't be imported" in status
    server.signal(signal.SIGHUP)
    server.wait_log("The reload was refused: app.py can't be imported", count=2)

    deployed.write(
        SOURCE.replace("class Account", "class Konto").replace("ACCOUNT", "KONTO").replace("(Account", "(Konto")
    )
    assert refusal(deployed) == (
        78,
        "The reload was refused: The new program has no type Account, of which there is data. Bring it back; or, if it "
        "is meant to be gone, restart the server with the new program. Nothing was changed.",
    )

    deployed.write("import os\n\nos._exit(7)\n")
    code, words = refusal(deployed)
    assert (code, words) == (
        78,
        "The reload was refused: the process that loads the new program ended with exit code 7. Nothing was changed.",
    )

    command = [sys.executable, "-m", "actord.server.cli", "reload", "--data-dir", str(server.data_dir)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == f"actord: {words}\n"

    assert deployed.versions() == {1}
    assert deployed.workers() == before
    assert server.result("Account", "a", "marks") == {"kept": 1}

    deployed.version(2, SOURCE + "\n\nclass Another(StatefulActor):\n    pass\n")
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout).keys() == {"workers", "seconds", "changed"}
    deployed.version(3)  # of a type without data nothing is lost
    assert deployed.reload()["changed"] == []
    assert deployed.versions() == {3}


SHAPE = """

from actord import upgrade

class Shape(StatefulActor):
    version = 2

    @upgrade(2)
    async def grow(self):
        pass

    async def put(self):
        await self.ctx.storage.put("a", 1)
"""


def test_a_program_that_is_older_than_its_data_is_refused(deployed: Deployed) -> None:
    deployed.version(2, SOURCE + SHAPE)
    deployed.reload()
    deployed.server.result("Shape", "x", "put")
    deployed.version(3, SOURCE + SHAPE.replace("version = 2", "version = 1").replace("@upgrade(2)", ""))
    assert refusal(deployed) == (
        78,
        "The reload was refused: The new program is older than the data: Shape has version 1, and there are data of "
        "version 2. Nothing was changed.",
    )
    assert deployed.versions() == {2}


FAILING = """

import os
import pathlib

def fail():
    {how}

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        place = pathlib.Path(__file__).with_name("started")
        if place.exists():
            fail()
        place.touch()
        await send({{"type": "lifespan.startup.complete"}})
        await receive()
        await send({{"type": "lifespan.shutdown.complete"}})
"""


def test_a_worker_that_fails_on_the_way_takes_all_back_to_the_program_of_before(deployed: Deployed) -> None:
    asyncio.run(failing_reloads(deployed))


async def failing_reloads(deployed: Deployed) -> None:
    server = deployed.server
    before = deployed.workers()
    load = Load(server.port, clients=3)
    guest = Guest(server, "b1", "guest")
    plain = SOURCE.replace("async def fetch", "async def no_fetch")
    deployed.version(1, plain)
    load_door = 'raise RuntimeError("no database")', "os._exit(9)"
    await load.end()
    await asyncio.to_thread(deployed.reload)
    before = deployed.workers()
    for number, how in enumerate(load_door, 2):
        (deployed.app.parent / "started").unlink(missing_ok=True)
        deployed.version(number, plain + FAILING.format(how=how))
        code, words = await asyncio.to_thread(refusal, deployed)
        assert code == 1
        assert words.startswith("The reload failed and was undone: ")
        assert ("no database" if number == 2 else "the new worker-1 ended with exit code 9") in words
        assert words.endswith("Every worker serves the program of before again.")
        assert await asyncio.to_thread(deployed.versions) == {1}
        assert deployed.workers() == before
    guest.leave()
    guest.check()
    load.audit(server)
    assert load.failed == []


def test_the_end_of_the_server_ends_a_reload_under_way(deployed: Deployed) -> None:
    endless = FAILING.format(how="pass").replace(
        "if place.exists():", "place.touch(); await receive()\n        if False:"
    )
    deployed.version(2, SOURCE.replace("async def fetch", "async def no_fetch") + endless)
    deployed.server.signal(signal.SIGHUP)
    until((deployed.app.parent / "started").exists, "the new program's startup")
    assert deployed.server.stop() == 0
    assert deployed.server.survivors() == []


def test_a_stream_in_the_making_is_finished_and_calls_go_on_meanwhile(deployed: Deployed) -> None:
    server = deployed.server
    until_file = deployed.app.parent / "go on"
    streams = []
    for _ in range(2):  # one in each worker
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_SECONDS)
        connection.request("GET", f"/drip?until={quote(str(until_file))}")
        streams.append(connection.getresponse())
        assert streams[-1].read(6) == b"begun "
    deployed.version(2)
    server.signal(signal.SIGHUP)
    server.wait_log("they are good; the workers are replaced")
    for name in "abcdef":
        assert server.result("Account", name, "version") == 1
    until_file.touch()
    assert [stream.read() for stream in streams] == [b"ended", b"ended"]
    server.wait_log("^reloaded$")
    assert deployed.versions() == {2}


def test_a_worker_that_others_keep_busy_gets_its_quiet_moment(tmp_path: Path) -> None:
    """At each moment some turn runs in the one that leaves, on behalf of actors of the other."""
    deployed = Deployed(tmp_path, **{"server.drain_limit": 20})
    try:
        assert asyncio.run(kept_busy(deployed)) == []
    finally:
        deployed.close()


async def kept_busy(deployed: Deployed) -> list[Any]:
    server = deployed.server
    names = {owner: [n for n in map(str, range(99)) if owned_by(n) == owner][:30] for owner in (0, 1)}
    failed: list[Any] = []
    stop = asyncio.Event()

    async def keep(number: int) -> None:
        client = Client(server.port)
        seconds = 0.2 + 0.013 * number  # not all of them end at once
        while not stop.is_set():
            reply = await client.call("Account", names[1][number], "relay", "mark", names[0][number], seconds)
            if reply.status != 200:
                failed.append(reply)
        client.close()

    tasks = [asyncio.create_task(keep(number)) for number in range(30)]
    deployed.version(2)
    await asyncio.to_thread(deployed.reload)
    stop.set()
    await asyncio.gather(*tasks)
    assert await asyncio.to_thread(deployed.versions) == {2}
    return failed


def owned_by(name: str) -> int:
    return shard_of_slot(slot_of("Account", name), 2)


def test_options_are_taken_by_workers_and_fronts_or_refused(tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "app.py").write_text(SOURCE)
    options = project / "actord.toml"
    options.write_text('main = "app.py"\n')
    server = Server(project, tmp_path / "data", settings={"server.workers": 1}).start()
    try:
        before = [child.pid for child in server.children("front")]
        with connect(server.port) as sock:  # it stays open, and gets the new limits as well
            sock.sendall(request("add", '["x"]'))
            assert [reply.status for reply in read_replies(sock, 1)] == [200]
            options.write_text(
                'main = "app.py"\n[http]\nbody_bytes = 20\nserver_timing = true\n[runtime]\ncall_timeout = 0.2\n'
                '[log]\nlevel = "debug"\n'
            )
            with AdminClient(str(server.data_dir)) as admin:
                done = admin.have_done("reload", on_progress=lambda _: None, patience=60)
            assert done["changed"] == ["http.body_bytes", "http.server_timing", "log.level", "runtime.call_timeout"]
            sock.sendall(request("slow", '["x", 9]') + request("add", json.dumps(["x" * 30])))
            slow, large = read_replies(sock, 2)
            assert slow.json()["name"] == "ActorMethodTimeoutError"
            assert "server-timing" in slow.headers
            assert large.status == 413
        assert [child.pid for child in server.children("front")] == before

        options.write_text('main = "app.py"\n[server]\nfronts = 2\npin = false\n')
        with AdminClient(str(server.data_dir)) as admin, pytest.raises(StartError) as caught:
            admin.have_done("reload", on_progress=lambda _: None, patience=60)
        assert str(caught.value) == (
            "The reload was refused: server.fronts and server.pin changed, which needs a restart. Nothing was changed."
        )
        options.write_text('main = "app.py"\n[http]\nbody_byts = 20\n')
        server.signal(signal.SIGHUP)
        server.wait_log(r"refused: .*unknown key http.body_byts. Did you mean body_bytes\? Nothing was changed\.")
        options.write_text('main = "app.py"\n[server]\ntls_key = "key.pem"\n')
        server.signal(signal.SIGHUP)
        server.wait_log(r"refused: server.tls_key is set, but server.tls_cert is not")
        assert server.result("Account", "a", "version") == 1
    finally:
        server.close()


def request(method: str, body: str) -> bytes:
    head = f"POST /actors/Account/a/{method} HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


@pytest.mark.skipif(not LONG, reason="ACTORD_TEST_LONG=1 runs it")
def test_kills_in_the_middle_of_reloads_lose_nothing_that_was_answered(tmp_path: Path) -> None:
    deployed = Deployed(tmp_path, **{"server.restart_delay_max": 0.1})
    try:
        asyncio.run(reloads_under_kills(deployed, random.Random(1)))
    finally:
        deployed.close()


async def reloads_under_kills(deployed: Deployed, lot: random.Random) -> None:
    server = deployed.server
    load = Load(server.port, clients=4)

    def kill_somebody() -> None:
        workers = sorted(deployed.workers())
        if workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(lot.choice(workers), signal.SIGKILL)

    def reload_again() -> bool:
        try:
            return bool(deployed.reload())
        except StartError:
            return False

    done = 0
    for number in range(2, 42):
        deployed.version(number)
        kill = asyncio.get_running_loop().call_later(lot.uniform(0, 1.5), kill_somebody)
        done += await asyncio.to_thread(reload_again)
        kill.cancel()
        await asyncio.to_thread(server.wait_ready)
    deployed.version(99)
    await asyncio.to_thread(until, reload_again, "a reload without a kill")
    assert await asyncio.to_thread(deployed.versions) == {99}
    await load.end()
    assert done > 0
    assert {(reply.status, reply.json()["applied"]) for reply in load.failed} <= {(503, "unknown"), (503, "no")}
    load.audit(server)
    assert server.stop() == 0


def test_a_worker_of_another_version_of_actord_refuses_to_stand_by() -> None:
    with pytest.raises(ProgramError, match=r"is installed now, but the server that runs is 0\.0\.9: .* Restart"):
        check_version("0.0.9")
    check_version(actord.__version__)


def test_a_terminal_that_is_closed_ends_the_server(tmp_path: Path) -> None:
    """SIGHUP means both: that the terminal has gone, and that there is something new."""
    (tmp_path / "app.py").write_text(SOURCE)
    command = ["-m", "actord.server.cli", "serve", str(tmp_path / "app.py"), "--port", "0", "--workers", "1"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, *command, "--data-dir", str(tmp_path / "data")])
    with pidfd(pid) as fd:
        said = b""
        while b"listening on" not in said:
            said += os.read(terminal, 65_536)
        os.close(terminal)
        assert ended(fd)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
