"""The turns that the runtime takes itself in an instance's life: it begins, and it goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actord.shards.call import Call


async def activate(turn: Call) -> None:
    """Before the first turn of an instance: its initialisers, in their order."""
    for initialise in turn.args:
        await initialise()


async def deactivate(turn: Call) -> None:
    """After its last one."""
    instance = turn.act.instance
    if instance is not None:
        await instance.on_deactivate()
