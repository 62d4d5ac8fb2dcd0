"""The operator's way in: ``run/admin.sock`` in the data directory, JSON lines, for whoever may read the data anyway.

1. A request is one line, ``{"do": ...}``, and gets one line. With ``"key": [type, name]`` it goes to the worker that
   owns the key, else to every worker; the answer is ``{"answers": [{"worker": 0, "value": ...}, ...]}``, with
   ``"error"``, a problem document, in the place of a value where there is none. Who asks is added as ``"by"``.
2. The supervisor passes requests on and understands none of them: what there is to do is in ``shards/admin.py``.
3. What concerns the server as a whole is in ``own``: the supervisor does it. What takes long (``tasks``) may tell of
   its progress by lines ``{"progress": words}`` before the last one, ``{"value": ...}`` or ``{"error": problem}`` with
   an ``exit`` code.
4. A worker that is away or dies is an answer too. Nobody waits longer than ``ANSWER_SECONDS`` for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import orjson
from actord.errors import ActordError, ActorUnavailable, BadRequest
from actord.server.children import Child
from actord.server.exits import FAILED, UNAVAILABLE, StartError
from actord.server.sockets import opened_folder
from actord.shards.slots import shard_of_slot, slot_of

ANSWER_SECONDS = 60.0
LINE_BYTES = 4 * 1024 * 1024  # a value of 2 MiB in base64
FOLDER, NAME = "run", "admin.sock"


log = logging.getLogger("actord.supervisor")

OwnHandler = Callable[[dict[str, Any]], Awaitable[Any]]
# Takes the request, and what to call with words on the progress.
TaskHandler = Callable[[dict[str, Any], Callable[[str], None]], Awaitable[Any]]


class AdminServer:
    """The supervisor's end."""

    def __init__(
        self,
        sock: socket.socket,
        workers: Sequence[Child],
        shards: int,
        own: Mapping[str, OwnHandler] | None = None,
        tasks: Mapping[str, TaskHandler] | None = None,
    ) -> None:
        self._sock = sock
        self._workers = workers
        self._shards = shards
        self._own = dict(own or {})
        self._tasks = dict(tasks or {})
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, sock=self._sock, limit=LINE_BYTES)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        by = _peer(writer)
        try:
            while line := await reader.readline():
                writer.write(orjson.dumps(await self._answer(line, writer, by)) + b"\n")
                await writer.drain()
        except (OSError, ValueError):  # it went away, or its line is too long
            pass
        finally:
            writer.close()

    async def _answer(self, line: bytes, writer: asyncio.StreamWriter, by: dict[str, int]) -> dict[str, Any]:
        try:
            request = orjson.loads(line) | {"by": by}
            own = self._own.get(request.get("do"))
            if own is not None:
                return {"answers": [await _own_answer(own, request)]}
            if request.get("do") in self._tasks:
                return await self._do(request, writer)
            asked = self._asked(request)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return {"error": BadRequest(f"This is no request: {error}").to_problem()}
        answers = await asyncio.gather(*(self._ask(index, request) for index in asked))
        return {"answers": answers}

    async def _do(self, request: dict[str, Any], writer: asyncio.StreamWriter) -> dict[str, Any]:
        def progress(words: str) -> None:
            if not writer.is_closing():
                writer.write(orjson.dumps({"progress": words}) + b"\n")

        try:
            return {"value": await self._tasks[request["do"]](request, progress)}
        except ActordError as error:
            return {"error": error.to_problem(), "exit": getattr(error, "exit", FAILED)}

    def _asked(self, request: dict[str, Any]) -> Sequence[int]:
        key = request.get("key")
        if key is None:
            return range(len(self._workers))
        type_, name = key
        return [shard_of_slot(slot_of(type_, name), self._shards) % len(self._workers)]

    async def _ask(self, index: int, request: dict[str, Any]) -> dict[str, Any]:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await self._workers[index].ask(request)
        except TimeoutError:
            answer = {"error": ActorUnavailable(f"Worker {index} did not answer in time.").to_problem()}
        return {"worker": index, **answer}


def _peer(writer: asyncio.StreamWriter) -> dict[str, int]:
    """Who is at the other end, by the kernel's word."""
    pid, uid, _gid = struct.unpack(
        "3i", writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    )
    return {"uid": uid, "pid": pid}


async def _own_answer(handler: OwnHandler, request: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"value": await handler(request)}
    except ActordError as error:
        return {"error": error.to_problem()}
    except Exception as error:  # a question must not end the server
        log.exception("the request %r failed", request.get("do"))
        return {"error": ActordError(f"{type(error).__name__}: {error}").to_problem()}


class AdminClient:
    """An operator's end: blocking, for the command line. ``StartError`` with exit code 69 when nobody is there."""

    def __init__(self, data_dir: str) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(ANSWER_SECONDS + 5)
        try:
            # By its folder's descriptor: a path of any length.
            with opened_folder(os.path.join(data_dir, FOLDER)) as fd:
                self._sock.connect(f"/proc/self/fd/{fd}/{NAME}")
        except OSError as error:
            self._sock.close()
            raise StartError(
                f"No server runs on the data directory {data_dir} ({error.strerror}). Start it, or name the directory "
                "of one that runs with --data-dir.",
                UNAVAILABLE,
            ) from None
        self._file = self._sock.makefile("rb")

    def ask(self, do: str, **params: Any) -> list[Any]:
        """The values of all workers asked; the first error ends the command with its words."""
        try:
            self._sock.sendall(json.dumps({"do": do, **params}).encode() + b"\n")
            line = self._file.readline()
        except OSError as error:
            raise StartError(f"The server did not answer: {error}.", UNAVAILABLE) from None
        if not line:
            raise StartError("The server went away.", UNAVAILABLE)
        reply = orjson.loads(line)
        for answer in [reply, *reply.get("answers", ())]:
            if "error" in answer:
                problem = answer["error"]
                code = UNAVAILABLE if problem.get("status") == ActorUnavailable.status else FAILED
                raise StartError(f"{problem['detail']} ({problem['name']})", code)
        return [answer["value"] for answer in reply["answers"]]

    def hurry(self, seconds: float) -> None:
        """Wait no longer than this for answers; after one that did not come the line is of no more use."""
        self._sock.settimeout(seconds)

    def have_done(self, do: str, *, on_progress: Callable[[str], None], patience: float, **params: Any) -> Any:
        """What the server does as a whole: its result, however long it takes while it says something every
        ``patience`` seconds. ``StartError`` with its words."""
        self._sock.settimeout(patience)
        try:
            self._sock.sendall(json.dumps({"do": do, **params}).encode() + b"\n")
            while line := self._file.readline():
                reply = orjson.loads(line)
                if "progress" not in reply:
                    break
                on_progress(reply["progress"])
            else:
                raise StartError("The server went away.", UNAVAILABLE)
        except OSError as error:
            raise StartError(f"The server did not answer: {error}.", UNAVAILABLE) from None
        if "error" in reply:
            raise StartError(reply["error"]["detail"], reply.get("exit", FAILED))
        return reply["value"]

    def close(self) -> None:
        self._file.close()
        self._sock.close()

    def __enter__(self) -> AdminClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def remove(data_dir: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(os.path.join(data_dir, FOLDER, NAME))
