"""actord: durable actors for Python.

What a program imports: ``from actord import StatefulActor, ActorError, Request, Response``. Names are loaded when they
are first used, so that a process pays only for what it needs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actord.actor import StatefulActor, timeout, upgrade
    from actord.alarm import AlarmInfo
    from actord.context import Context, Env, Namespace, Storage, env, stub_id
    from actord.errors import (
        ActorArgumentError,
        ActorDeadlockError,
        ActordError,
        ActorError,
        ActorMethodError,
        ActorMethodTimeoutError,
        ActorOutputGateError,
        ActorOverloaded,
        ActorUnavailable,
        AlarmHandlerMissing,
        AlarmTimeError,
        CodecError,
        SendError,
        TurnEnded,
    )
    from actord.http import Request, Response
    from actord.streaming import StreamingResponse
    from actord.websocket import WebSocket

__version__ = "0.1.0"

_HOME = {
    "StatefulActor": "actor",
    "AlarmInfo": "alarm",
    "timeout": "actor",
    "upgrade": "actor",
    "Context": "context",
    "Env": "context",
    "Namespace": "context",
    "Storage": "context",
    "env": "context",
    "stub_id": "context",
    "Request": "http",
    "Response": "http",
    "StreamingResponse": "streaming",
    "ActorArgumentError": "errors",
    "ActorDeadlockError": "errors",
    "ActorError": "errors",
    "ActorMethodError": "errors",
    "ActorMethodTimeoutError": "errors",
    "ActorOutputGateError": "errors",
    "ActorOverloaded": "errors",
    "ActorUnavailable": "errors",
    "AlarmHandlerMissing": "errors",
    "AlarmTimeError": "errors",
    "ActordError": "errors",
    "CodecError": "errors",
    "SendError": "errors",
    "TurnEnded": "errors",
    "WebSocket": "websocket",
}

__all__ = [
    "ActorArgumentError",
    "ActorDeadlockError",
    "ActorError",
    "ActorMethodError",
    "ActorMethodTimeoutError",
    "ActorOutputGateError",
    "ActorOverloaded",
    "ActorUnavailable",
    "ActordError",
    "AlarmHandlerMissing",
    "AlarmInfo",
    "AlarmTimeError",
    "CodecError",
    "Context",
    "Env",
    "Namespace",
    "Request",
    "Response",
    "SendError",
    "StatefulActor",
    "Storage",
    "StreamingResponse",
    "TurnEnded",
    "WebSocket",
    "__version__",
    "env",
    "stub_id",
    "timeout",
    "upgrade",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'actord' has no attribute {name!r}")
    value = getattr(import_module(f"actord.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
