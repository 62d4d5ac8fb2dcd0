"""The listening sockets of a server. The supervisor opens them all and keeps them, so that a child may come and go
under living connections; children get them by descriptor.

1. A port or socket file that another server uses is never taken over; a socket file whose owner has died is.
2. Socket files are for the user of the server alone (0600), from their first moment on.
3. Every failure is a ``StartError`` with words on what to do.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import os
import resource
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from actord.server.exits import CONFIG, TEMPORARY, StartError

log = logging.getLogger("actord.supervisor")

BACKLOG = 4096
SPARE_DESCRIPTORS = 1_024
UNIX_PATH_BYTES = 107


def open_tcp(host: str, port: int, *, option: str = "--port") -> socket.socket:
    """Listen on a TCP address; port 0 picks a free one. ``option`` sets it, for the words of a failure."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise StartError(f"The host {host!r} can't be resolved: {error.strerror}.", CONFIG) from None
    sock = socket.socket(family, kind, proto)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        where = f"{host}:{port}"
        if error.errno == errno.EADDRINUSE:
            raise StartError(
                f"The address {where} is in use by another program. Stop that one (`ss -ltnp` shows it), choose "
                f"another port with {option}, or let the system pick a free one with port 0.",
                TEMPORARY,
            ) from None
        if error.errno == errno.EACCES:
            raise StartError(
                f"The system does not let this user listen on {where}: ports below 1024 are privileged. Choose a "
                f"higher one with {option}.",
                CONFIG,
            ) from None
        if error.errno == errno.EADDRNOTAVAIL:
            raise StartError(f"This machine has no address {host}. Choose one that it has with --host.") from None
        raise StartError(f"Can't listen on {where}: {error.strerror}.", CONFIG) from None
    sock.setblocking(False)
    return sock


def open_uds(path: str) -> socket.socket:
    """Listen on a unix socket file at ``path``, in the place of one that a dead server left behind."""
    target = Path(path)
    if len(os.fsencode(path)) > UNIX_PATH_BYTES:
        raise StartError(f"The path of a unix socket has at most {UNIX_PATH_BYTES} bytes: {path}", CONFIG)
    try:
        _refuse_taken(target)
        # Bound under another name and then renamed: nobody ever meets a file that does not answer.
        with tempfile.TemporaryDirectory(prefix=".actord-", dir=target.parent) as folder, opened_folder(folder) as fd:
            sock = _bind_unix(f"/proc/self/fd/{fd}/s")  # short, whatever the folder's path
            os.rename(os.path.join(folder, "s"), target)
    except OSError as error:
        raise StartError(f"Can't listen on the unix socket {path}: {error.strerror}.", CONFIG) from None
    return sock


def open_worker_socket(path: str) -> socket.socket:
    """Listen for links to a worker; the caller owns the folder, so a file that is there is stale."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    try:
        return _bind_unix(path)
    except OSError as error:
        raise StartError(f"Can't listen on {path}: {error.strerror}.", CONFIG) from None


def remove_uds(path: str) -> None:
    """Take away our socket file once nothing listens on it any more; another server's file stays."""
    with contextlib.suppress(OSError, StartError):
        _refuse_taken(Path(path))
        os.unlink(path)


def open_admin_socket(folder: str, name: str) -> socket.socket:
    """Listen in ``folder``, which is made (0700) when it is not there; the caller holds the data directory's lock."""
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, name))
        with opened_folder(folder) as fd:
            return _bind_unix(f"/proc/self/fd/{fd}/{name}")
    except OSError as error:
        raise StartError(f"Can't listen on {folder}/{name}: {error.strerror}.", CONFIG) from None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class RuntimeDir:
    """The folder (0700) of the workers' sockets and the links' begun maps.

    ``run`` in the data directory, whose lock the caller holds; or a temporary folder, in ``given`` (the service
    manager's runtime directory, which is memory) or when that path is too long for a unix socket. What an earlier
    server left in it is removed.
    """

    def __init__(self, data_dir: Path, given: str = "") -> None:
        folder = data_dir / "run"
        longest = os.fsencode(str(folder / "worker-9999.sock"))
        self._temporary = bool(given) or len(longest) > UNIX_PATH_BYTES
        if self._temporary:
            try:
                self.path = Path(tempfile.mkdtemp(prefix="actord-", dir=given or None))
            except OSError as error:
                raise StartError(f"Can't prepare a folder in {given}: {error.strerror}.", CONFIG) from None
            return
        self.path = folder
        try:
            if folder.is_symlink():
                folder.unlink()
            folder.mkdir(mode=0o700, exist_ok=True)
            folder.chmod(0o700)
            self._clear()
        except OSError as error:
            raise StartError(f"Can't prepare the folder {folder}: {error.strerror}.", CONFIG) from None

    def _clear(self) -> None:
        for entry in self.path.iterdir():
            if not entry.is_dir() or entry.is_symlink():
                entry.unlink()

    def remove(self) -> None:
        with contextlib.suppress(OSError):
            if self._temporary:
                shutil.rmtree(self.path)
            else:
                self._clear()


@contextlib.contextmanager
def opened_folder(folder: str) -> Iterator[int]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _bind_unix(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o177)
    try:
        sock.bind(path)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    finally:
        os.umask(old)
    sock.setblocking(False)
    return sock


def _refuse_taken(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise StartError(f"{path} exists and is no socket; it is left alone. Choose another path with --uds.", CONFIG)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return  # its owner has gone
        except OSError as error:
            if error.errno == errno.ENOENT:
                return
    raise StartError(f"Another server answers on {path}. Stop it, or choose another path with --uds.", TEMPORARY)


def raise_descriptor_limit(connections: int) -> None:
    """Room for the connections that the settings allow, within what the system allows this user."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    need = connections + SPARE_DESCRIPTORS
    if soft == resource.RLIM_INFINITY or soft >= need:
        return
    if hard != resource.RLIM_INFINITY and hard < need:
        log.warning(
            "http.connections is %d, but the system allows %d open files (ulimit -n): more connections than that fail",
            connections,
            hard,
        )
        need = hard
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (need, hard))


def has_terminal() -> bool:
    """Is there a terminal whose end would end this process, unless it were told otherwise?"""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
