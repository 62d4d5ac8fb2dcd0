"""Several programs of one server: a request or socket of the front door goes to the one whose mount is above its path.

The longest mount wins; ``/shop`` takes ``/shop`` and ``/shop/...``, not ``/shopping``. The main program, which has no
mount, takes the rest. A program's ``fetch`` sees the path as it came; an ASGI application has its mount in
``root_path``, as ASGI wants it.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

from actord.errors import NotFound
from actord.http import Request
from actord.shards.asgi import AsgiDoor
from actord.shards.door import FrontDoor
from actord.shards.problem import PROBLEM_HEAD, problem_reply

if TYPE_CHECKING:
    from actord.shards.intake import Connection
    from actord.shards.socket_events import Party, SocketEvents

Door = FrontDoor | AsgiDoor


class MountedDoors:
    """Front doors by mount: an empty mount is the main program's."""

    def __init__(self, doors: dict[str, Door]) -> None:
        self.doors = sorted(doors.items(), key=lambda item: -len(item[0]))  # by their mounts

    @property
    def open(self) -> int:
        return sum(door.open for _, door in self.doors)

    async def startup(self, limit: float) -> None:
        """Start the applications, one after the other. Raises ``ProgramError``."""
        for _, door in self.doors:
            if isinstance(door, AsgiDoor):
                await door.startup(limit)

    async def shutdown(self, limit: float) -> None:
        for _, door in self.doors:
            if isinstance(door, AsgiDoor):
                await door.shutdown(limit)

    def drain(self) -> None:
        for _, door in self.doors:
            if isinstance(door, AsgiDoor):
                door.drain()

    def begin(self, sink: Connection, id_: int, request: Request, flags: int, deadline: int, queued: float) -> None:
        found = self._find(request)
        if found is not None:
            door, request = found
            door.begin(sink, id_, request, flags, deadline, queued)
            return
        status, body, head = problem_reply(_nobody(), msgpack=False)
        sink.put_reply(id_, status, body, head or PROBLEM_HEAD)
        sink.flush()

    def open_socket(self, events: SocketEvents, sid: int, seq: int, request: Request, deadline: int) -> Party | None:
        """An upgrade. None: no program is there, and it was refused."""
        found = self._find(request)
        if found is None:
            events.refuse(sid, seq, _nobody())
            return None
        door, request = found
        return door.open_socket(events, sid, seq, request, deadline)

    def _find(self, request: Request) -> tuple[Door, Request] | None:
        """The door, and the request as it counts its paths."""
        path = request.raw_path
        for mount, door in self.doors:
            if not mount or path == mount or path.startswith(mount + "/"):
                return door, _below(request, mount) if mount and isinstance(door, AsgiDoor) else request
        return None


def _nobody() -> NotFound:
    return NotFound("No program of this server is at this path.")


def _below(request: Request, mount: str) -> Request:
    """The request as an application at this mount counts its paths."""
    inner = copy(request)
    inner.url = request.url[len(mount) :]
    inner.raw_path = request.raw_path[len(mount) :]
    inner.path = request.path[len(mount) :]
    return inner
