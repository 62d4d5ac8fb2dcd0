"""An instance's life: it is built; and the turns that the runtime takes itself, as it begins and as it goes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from actord.shards.activation import ActorContext

if TYPE_CHECKING:
    from actord.shards.activation import Activation
    from actord.shards.call import Call


def build(act: Activation, env: Any) -> list[Callable[[], Awaitable[Any]]]:
    """Construct the instance, in a context of its own. What has to run before its first turn."""
    context = ActorContext(act, env)
    act.instance = copy_context().run(act.host.type.build, context, env)
    return context.initialisers()


async def activate(turn: Call) -> None:
    """Before the first turn of an instance: its initialisers, in their order."""
    for initialise in turn.args:
        await initialise()


async def deactivate(turn: Call) -> None:
    """After its last one."""
    instance = turn.act.instance
    if instance is not None:
        await instance.on_deactivate()
