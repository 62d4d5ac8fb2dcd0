"""Two other servers for the comparison: nginx as a proxy that reads whole bodies, and uvicorn with h11.

Both answer every request that they understand with 200. Each runs in a process of its own on a free port, with a folder
of its own, and ends by its process id.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Address = tuple[str, int]
START_SECONDS = 20.0

# Limits as ours where they can be set: 10 MiB of body; lines have 8 KiB. A `return` alone would answer before the
# body is read, so there is a proxy in front of it, which is also how nginx is used.
NGINX = """
worker_processes 1;
daemon off;
pid nginx.pid;
error_log stderr crit;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_max_body_size 10m;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://127.0.0.1:{inner}; }} }}
  server {{ listen 127.0.0.1:{inner}; location / {{ return 200 'ok'; }} }}
}}
"""


def missing() -> list[str]:
    """What has to be installed before the peers can run."""
    found = []
    if shutil.which("nginx") is None and not Path("/usr/sbin/nginx").exists():
        found.append("nginx (apt-get install nginx-light)")
    try:
        import h11  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError:
        found.append("uvicorn (pip install 'actord[compare]')")
    return found


async def application(scope: Any, receive: Any, send: Any) -> None:
    """The program of uvicorn: reads the body, then answers."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@contextlib.contextmanager
def nginx(folder: Path) -> Iterator[Address]:
    folder.chmod(0o755)  # its workers run as another user
    port, inner = _free_port(), _free_port()
    (folder / "nginx.conf").write_text(NGINX.format(port=port, inner=inner))
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    with _running([program, "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"], port) as address:
        yield address


@contextlib.contextmanager
def uvicorn(folder: Path) -> Iterator[Address]:
    port = _free_port()
    command = [sys.executable, "-m", "uvicorn", "tests.corpus.peers:application", "--http", "h11", "--port", str(port)]
    with _running([*command, "--log-level", "critical", "--ws", "none", "--lifespan", "off"], port) as address:
        yield address


def version(name: str) -> str:
    """The version of a peer that runs here."""
    if name == "nginx":
        program = shutil.which("nginx") or "/usr/sbin/nginx"
        return subprocess.run([program, "-v"], capture_output=True, text=True).stderr.strip().rpartition("/")[2]
    from importlib.metadata import version as of

    return f"{of('uvicorn')} with h11 {of('h11')}"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def _running(command: list[str], port: int) -> Iterator[Address]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"{command[0]} did not start") from None
                time.sleep(0.02)
        yield "127.0.0.1", port
    finally:
        process.terminate()
        process.wait(START_SECONDS)
