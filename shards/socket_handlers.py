"""What a class does with sockets, as the turns that its events become."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from actord.measures import new_times
from actord.shards.call import Work
from actord.shards.socket_events import connect, disconnect

if TYPE_CHECKING:
    from actord.actor import StatefulActor

_SIGNATURES = {
    "web_socket": "(self, ws, request)",
    "web_socket_message": "(self, ws, data)",
    "web_socket_close": "(self, ws, code, reason)",
}


class SocketHandler(Work):
    """Stands where a user's method would."""

    __slots__ = ()

    def __init__(self, name: str, function: Callable[..., Any], timeout: float | None) -> None:
        self.name = name
        self.label = name.encode()
        self.function = function
        self.timeout = timeout
        self.times = new_times()


def socket_handlers(
    cls: type[StatefulActor], timeout: float | None
) -> tuple[SocketHandler | None, SocketHandler | None, SocketHandler]:
    """Those for openings, messages and ends. A class without ``web_socket`` has none of the first two.

    Raises ``ValueError`` with what to write instead.
    """
    found = {name: _handler(cls, name) for name in _SIGNATURES}
    opening, message, end = found.values()
    limits = [getattr(one, "__actord_timeout__", timeout) for one in found.values()]
    return (
        None if opening is None else SocketHandler("web_socket", partial(connect, opening), limits[0]),
        None if opening is None or message is None else SocketHandler("web_socket_message", message, limits[1]),
        SocketHandler("web_socket_close", partial(disconnect, end), limits[2]),
    )


def _handler(cls: type[StatefulActor], name: str) -> Callable[..., Any] | None:
    handler: Callable[..., Any] | None = getattr(cls, name, None)
    if handler is None:
        return None
    wanted = _SIGNATURES[name]
    try:
        inspect.signature(handler).bind(*wanted.split(","))
        fits = inspect.iscoroutinefunction(handler)
    except TypeError:
        fits = False
    if not fits:
        raise ValueError(f"{cls.__name__}.{name} must be `async def {name}{wanted}`.")
    return handler
