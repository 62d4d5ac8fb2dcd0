"""The data directory: one server, a manifest that is whole, and refusals that say what to do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from actord.errors import DataDirError, DataDirLocked
from actord.storage.datadir import NETWORK_FILE_SYSTEMS, filesystem_of, open_data_dir, read_manifest


def open_dir(path: Path, shards: int = 2):
    return open_data_dir(str(path), shards=shards, ballast=4096)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data"


def test_a_new_directory_gets_a_manifest_and_is_private(path):
    data = open_dir(path)
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["format"] == 1
    assert manifest["shards"] == data.shards == 2
    assert manifest["slot_hash"] == "crc32-knuth-1"
    assert str(uuid.UUID(manifest["identity"])) == data.identity
    assert path.stat().st_mode & 0o777 == 0o700
    assert (path / "shards").stat().st_mode & 0o777 == 0o700
    for name in ("manifest.json", "lock"):
        assert (path / name).stat().st_mode & 0o777 == 0o600
    assert data.shard_path(1) == str(path / "shards" / "0001.db")
    assert data.ballast_path(1) == str(path / "shards" / "0001.ballast")
    with pytest.raises(IndexError):
        data.shard_path(2)
    data.close()


def test_the_recorded_number_of_shards_wins(path):
    first = open_dir(path, shards=3)
    first.close()
    again = open_dir(path, shards=8)
    assert (again.shards, again.identity) == (3, first.identity)
    assert read_manifest(str(path)).shards == 3
    again.close()


SERVER = """
import sys
from actord.storage.datadir import open_data_dir
data = open_data_dir(sys.argv[1], shards=2, ballast=4096)
print(data.identity, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def server(path):
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.identity = process.stdout.readline().strip()
    yield process
    process.kill()
    process.wait()


def test_a_second_server_is_refused_and_told_who_holds_the_directory(path, server):
    with pytest.raises(DataDirLocked, match=f"pid {server.pid}"):
        open_dir(path)


def test_a_killed_server_holds_nothing(path, server):
    server.send_signal(signal.SIGKILL)
    server.wait()
    data = open_dir(path)
    assert data.identity == server.identity
    data.close()


def test_children_do_not_inherit_the_lock(path):
    data = open_dir(path)
    # Once it runs: exec closes the descriptors a moment after it has let its parent go on.
    child = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        close_fds=False,
    )
    try:
        assert child.stdout.readline() == b"\n"
        data.close()
        open_dir(path).close()
    finally:
        child.communicate(b"\n")


def test_two_servers_that_start_at_once_agree_on_one_winner(path):
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SERVER, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    try:
        lines = [process.stdout.readline().strip() for process in processes]
        winners = [line for line in lines if line]
        assert len(winners) == 1
        assert read_manifest(str(path)).identity == winners[0]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def change_manifest(path: Path, **changes: object) -> None:
    file = path / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": 2}, "newer actord"),
        ({"slot_hash": "md5"}, "slot hash"),
        ({"identity": "no uuid"}, "damaged"),
        ({"shards": 0}, "damaged"),
        ({"shards": "two"}, "damaged"),
        ({"shards": None}, "damaged"),
        ({"format": "1"}, "damaged"),
    ],
)
def test_a_manifest_that_can_t_be_ours_is_refused(path, changes, words):
    open_dir(path).close()
    change_manifest(path, **changes)
    before = (path / "manifest.json").read_bytes()
    with pytest.raises(DataDirError, match=words):
        open_dir(path)
    assert (path / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b'{"format": 1}', b"\xff\xfe\0", bytes(200_000)])
def test_a_damaged_manifest_is_refused_with_what_to_do(path, content):
    open_dir(path).close()
    (path / "manifest.json").write_bytes(content)
    with pytest.raises(DataDirError, match=r"Restore manifest\.json"):
        open_dir(path)
    # Again in the same words: the refusal has let the lock go.
    with pytest.raises(DataDirError, match=r"Restore manifest\.json"):
        open_dir(path)


def test_shards_without_a_manifest_are_not_taken_for_a_new_directory(path):
    open_dir(path).close()
    (path / "shards" / "0000.db").write_bytes(b"data")
    (path / "manifest.json").unlink()
    with pytest.raises(DataDirError, match="no manifest"):
        open_dir(path)


def test_somebody_s_own_directory_is_left_alone(path):
    path.mkdir()
    (path / "thesis.txt").write_text("all of it")
    with pytest.raises(DataDirError, match=r"thesis\.txt"):
        open_dir(path)
    assert os.listdir(path) == ["thesis.txt"]


def test_a_first_start_that_was_cut_off_is_begun_anew(path):
    (path / "shards").mkdir(parents=True)
    (path / "lock").touch()
    (path / "manifest.json.tmp").write_text("{")
    open_dir(path).close()
    assert not (path / "manifest.json.tmp").exists()


@pytest.mark.parametrize("name", ["manifest.json", "lock", "shards"])
def test_symbolic_links_inside_are_refused(path, name):
    open_dir(path).close()
    (path / name).rename(path.parent / name)
    (path / name).symlink_to(path.parent / name)
    with pytest.raises(DataDirError, match="symbolic link"):
        open_dir(path)


def test_the_directory_itself_may_be_a_symbolic_link(path, tmp_path):
    (tmp_path / "volume").mkdir()
    path.symlink_to(tmp_path / "volume")
    data = open_dir(path)
    assert data.path == str(tmp_path / "volume")
    data.close()


def test_a_file_in_the_place_of_the_directory_is_refused(path):
    path.write_text("a file")
    with pytest.raises(DataDirError):
        open_dir(path)


def test_a_ballast_that_does_not_fit_is_refused_at_creation(path):
    with pytest.raises(DataDirError, match="ballast"):
        open_data_dir(str(path), shards=2, ballast=1 << 60)


def test_an_unwritable_directory_is_refused_with_what_to_do(tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    code = (
        "import os, sys\nfrom actord.errors import DataDirError\nfrom actord.storage.datadir import open_data_dir\n"
        "if os.geteuid() == 0:\n    os.setuid(65534)\n"
        "try:\n    open_data_dir(sys.argv[1], shards=1, ballast=1)\n"
        "except DataDirError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(locked)], capture_output=True, text=True, check=True)
    assert "can't be written by this user" in done.stdout
    assert "Change its owner" in done.stdout
    assert os.listdir(locked) == []


MOUNTS = r"""sysfs /sys sysfs rw 0 0
/dev/vda1 / ext4 rw,relatime 0 0
server:/export /srv/nfs nfs4 rw 0 0
/dev/vdb /srv/nfs/local xfs rw 0 0
//nas/share /mnt/my\040share cifs rw 0 0
tmpfs /over tmpfs rw 0 0
host:/x /over fuse.sshfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/var/lib/actord", "ext4"),
        ("/srv/nfs", "nfs4"),
        ("/srv/nfs/data", "nfs4"),
        ("/srv/nfs-not", "ext4"),
        ("/srv/nfs/local/data", "xfs"),
        ("/mnt/my share/data", "cifs"),
        ("/over/data", "fuse.sshfs"),
    ],
)
def test_the_longest_and_latest_mount_decides(path, kind):
    assert filesystem_of(path, MOUNTS) == kind


def test_no_mounts_no_file_system():
    assert filesystem_of("/data", "") == ""


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "9p", "fuse.sshfs", "ceph"])
def test_a_network_file_system_is_refused(path, kind, monkeypatch):
    assert kind in NETWORK_FILE_SYSTEMS
    monkeypatch.setattr("actord.storage.datadir.filesystem_of", lambda path, mounts: kind)
    with pytest.raises(DataDirError, match=rf"network file system \({kind}\)"):
        open_dir(path)
    assert not (path / "manifest.json").exists()
