"""The listening sockets: what is taken over, what is refused, and who may connect."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from actord.server.exits import CONFIG, TEMPORARY, StartError
from actord.server.sockets import RuntimeDir, open_tcp, open_uds, open_worker_socket, remove_uds


def test_port_0_picks_a_port_that_answers() -> None:
    with open_tcp("127.0.0.1", 0) as sock:
        assert sock.getsockname()[1] > 0
        socket.create_connection(sock.getsockname(), timeout=30).close()


def test_a_port_in_use_is_told_with_what_to_do() -> None:
    with open_tcp("127.0.0.1", 0) as sock, pytest.raises(StartError, match="--port") as info:
        open_tcp("127.0.0.1", sock.getsockname()[1])
    assert info.value.exit == TEMPORARY


@pytest.mark.skipif(os.geteuid() == 0, reason="root may listen on every port")
def test_a_privileged_port_is_told_with_what_to_do() -> None:
    with pytest.raises(StartError, match="privileged") as info:
        open_tcp("127.0.0.1", 1)
    assert info.value.exit == CONFIG


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(StartError, match="no address"):
        open_tcp("192.0.2.1", 0)


def test_a_socket_file_is_for_its_user_alone(tmp_path: Path) -> None:
    with open_uds(str(tmp_path / "s")):
        assert (tmp_path / "s").stat().st_mode & 0o777 == 0o600
        assert [entry.name for entry in tmp_path.iterdir()] == ["s"]
        _connect(tmp_path / "s")


def test_a_socket_file_of_a_dead_server_is_replaced(tmp_path: Path) -> None:
    open_uds(str(tmp_path / "s")).close()
    assert (tmp_path / "s").exists()
    with open_uds(str(tmp_path / "s")):
        _connect(tmp_path / "s")


def test_a_socket_file_of_a_living_server_is_not_touched(tmp_path: Path) -> None:
    with open_uds(str(tmp_path / "s")):
        with pytest.raises(StartError, match="Another server") as info:
            open_uds(str(tmp_path / "s"))
        assert info.value.exit == TEMPORARY
        remove_uds(str(tmp_path / "s"))
        _connect(tmp_path / "s")


def test_a_file_that_is_no_socket_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    with pytest.raises(StartError, match="left alone"):
        open_uds(str(tmp_path / "s"))
    remove_uds(str(tmp_path / "s"))
    assert (tmp_path / "s").read_text() == "precious"


def test_our_own_socket_file_goes_with_us(tmp_path: Path) -> None:
    open_uds(str(tmp_path / "s")).close()
    remove_uds(str(tmp_path / "s"))
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("length", [107, 108])
def test_paths_up_to_the_systems_limit_work(tmp_path: Path, length: int) -> None:
    path = str(tmp_path / "x")
    path += "x" * (length - len(path))
    if length > 107:
        with pytest.raises(StartError, match="at most 107 bytes"):
            open_uds(path)
    else:
        with open_uds(path):
            _connect(Path(path))


def test_a_folder_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="No such file"):
        open_uds(str(tmp_path / "none" / "s"))


def test_the_runtime_folder_is_emptied_of_files_and_links_alone(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("precious")
    run = tmp_path / "run"
    run.mkdir(mode=0o755)
    (run / "stale").touch()
    (run / "link").symlink_to(tmp_path / "outside")
    (run / "folder").mkdir()
    runtime = RuntimeDir(tmp_path)
    assert runtime.path == run
    assert run.stat().st_mode & 0o777 == 0o700
    assert [entry.name for entry in run.iterdir()] == ["folder"]
    assert (tmp_path / "outside").read_text() == "precious"
    with open_worker_socket(str(run / "worker-0.sock")):
        assert (run / "worker-0.sock").stat().st_mode & 0o777 == 0o600
    runtime.remove()
    assert [entry.name for entry in run.iterdir()] == ["folder"]


def test_a_runtime_folder_that_is_a_link_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("precious")
    (tmp_path / "run").symlink_to(tmp_path / "elsewhere")
    RuntimeDir(tmp_path)
    assert not (tmp_path / "run").is_symlink()
    assert (tmp_path / "elsewhere" / "file").read_text() == "precious"


def _connect(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(30)
        client.connect(str(path))
