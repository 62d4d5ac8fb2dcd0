"""``StatefulActor``: the class that users subclass."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

from actord.context import Context, Env
from actord.http import Request, Response

F = TypeVar("F", bound=Callable[..., Any])


class StatefulActor:
    """One entity with its own durable state. One instance runs for each name, one call at a time.

    Public methods are callable from outside, ``async def`` and plain ``def`` alike; names that begin with ``_`` are
    not. ``self.ctx`` and ``self.env`` are there before ``__init__`` runs, so a subclass may define ``__init__(self)``,
    or take ``(self, ctx, env)``. Fields of ``self`` are a cache: only ``self.ctx.storage`` survives.

    Class attributes that a subclass may set:

    * ``rpc``: the names of the only callable methods.
    * ``expose``: False: unknown to callers over HTTP; actors, messages and the front door reach it (default True).
    * ``call_timeout``: seconds that a call or ``fetch`` may run (default 30); ``@timeout`` does it for one method.
    * ``idle_after``: seconds without a call after which the instance leaves memory (default 60).
    * ``init_timeout``: seconds that the initialisation may take (default 30).
    * ``mailbox``: how many calls may wait for one instance (default 1,000); more are refused at once.
    * ``alarm_timeout``: seconds that one run of ``alarm`` may take (default 900).
    * ``alarm_retries``: how often a run that failed is repeated, before the alarm is kept as failed (default 6).
    * ``events_kept``: how many emitted events are kept for readers that come later or come back (default 1,000).
    * ``events_age``: for how many seconds each of them is kept (default 86,400).
    * ``events_public``: False: nobody may read the events over HTTP (default True).
    * ``type``: a str, the type's name when it is not that of the class: a class that is renamed keeps its data with it.
    * ``version``: an int, the shape of what the class stores (default 1); see ``upgrade``. Neither is declared here, so
      that methods may have these names too.
    * ``send_retries``: how often the delivery of a message to it is repeated after it failed, before the message is
      parked (default 6).

    A class with WebSockets defines ``async def web_socket(self, ws, request)``, which lets a client in, and mostly
    ``async def web_socket_message(self, ws, data)`` and ``async def web_socket_close(self, ws, code, reason)``.

    A class that sets alarms defines ``async def alarm(self, info: AlarmInfo) -> None``, which runs when one is due.
    """

    rpc: ClassVar[tuple[str, ...] | None] = None
    expose: ClassVar[bool] = True
    call_timeout: ClassVar[float | None] = None
    idle_after: ClassVar[float | None] = None
    init_timeout: ClassVar[float | None] = None
    mailbox: ClassVar[int | None] = None
    alarm_timeout: ClassVar[float | None] = None
    alarm_retries: ClassVar[int | None] = None
    events_kept: ClassVar[int | None] = None
    events_age: ClassVar[float | None] = None
    events_public: ClassVar[bool] = True
    send_retries: ClassVar[int | None] = None

    ctx: Context
    env: Env

    def __init__(self, ctx: Context, env: Env) -> None:
        self.ctx = ctx
        self.env = env

    async def on_activate(self) -> None:
        """Runs before the first turn of a new instance; its writes commit. It may take 30 s."""

    async def on_deactivate(self) -> None:
        """Runs before an idle instance leaves memory. Best effort: a crash skips it."""

    async def fetch(self, request: Request) -> Response:
        """Answers ``/actors/{type}/{name}/fetch/{path}``; the default is 404."""
        return Response.text("not found", status=404)


def timeout(seconds: float) -> Callable[[F], F]:
    """Give one method its own time limit, in seconds of wall clock, instead of the type's ``call_timeout``."""
    if not seconds > 0:
        raise ValueError("a time limit must be more than 0 seconds")

    def mark(function: F) -> F:
        function.__actord_timeout__ = seconds  # type: ignore[attr-defined]
        return function

    return mark


def upgrade(version: int) -> Callable[[F], F]:
    """Mark the method that brings an actor's stored data from the version before to this one, 2 or more.

    ``async def`` without arguments. When an instance whose data are older than its class's ``version`` is first needed,
    its upgrades run in order, before ``on_activate`` and before its first turn. All that they write commits at once or
    not at all: when one raises, the call fails, and the next one tries again. Callers can't reach it.
    """
    if type(version) is not int or version < 2:
        raise ValueError(f"an upgrade leads to version 2 or later, not {version!r}: version 1 is the first")

    def mark(function: F) -> F:
        function.__actord_upgrade__ = version  # type: ignore[attr-defined]
        return function

    return mark


def type_name(cls: type[Any]) -> str:
    """The name of an actor type: what the class itself says it is, else the name of the class."""
    own = vars(cls).get("type")
    return own if isinstance(own, str) else cls.__name__


_BASE = frozenset(name for name in dir(StatefulActor) if not name.startswith("_"))


def called_by_runtime(name: str) -> bool:
    """Whether the runtime alone calls what has this name."""
    return name in _BASE or name == "alarm" or name.startswith(("on_", "web_socket"))


def public_functions(cls: type[StatefulActor]) -> dict[str, Callable[..., Any]]:
    """The functions that the class and its bases below ``StatefulActor`` define for callers, by name.

    Those that ``rpc`` leaves out are among them.
    """
    found: dict[str, Callable[..., Any]] = {}
    for base in reversed(cls.__mro__):
        if base in (StatefulActor, object):
            continue
        for name, value in vars(base).items():
            if name.startswith("_") or called_by_runtime(name):
                continue
            if inspect.isfunction(value) and not hasattr(value, "__actord_upgrade__"):
                found[name] = value
            else:
                found.pop(name, None)
    return found
