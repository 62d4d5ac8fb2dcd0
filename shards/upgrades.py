"""State that changes its shape: an actor's data are brought to the version of its class before anything else runs.

1. The upgrades of an instance run in order, in the turn that initialises it, before ``on_activate`` and before the call
   that needs it. What they write commits at once, with the number of the version, in the commit of that first call or
   before it: data and number never differ.
2. An upgrade that raises fails the calls that wait, and nothing of it is kept; the next call tries again.
3. Data of a later version than the class's are never touched: ``ActorVersionError``. So are data for whose version
   there is no upgrade any more.
4. An actor without data begins with the class's version. A class that has only ever had version 1 pays nothing.

Crash story: none of its own; the number is a row of the commit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from actord.errors import ActorVersionError
from actord.shards.call import Effect

if TYPE_CHECKING:
    from actord.shards.activation import Activation
    from actord.shards.call import Call
    from actord.storage.api import Batch


class _Reached(Effect):
    """The turn has brought the actor's data to a version."""

    __slots__ = ("_version",)

    def __init__(self, version: int) -> None:
        self._version = version

    def join(self, call: Call, batch: Batch) -> None:
        act = call.act
        batch.versions[act.kv.ensure_id(batch)] = self._version
        act.seq = batch.seq


async def bring_up_to_date(act: Activation) -> None:
    """Run the upgrades that the instance's data need, in the turn that runs. Raises what an upgrade raises."""
    type_, turn = act.host.type, act.turn
    assert turn is not None
    actor = act.kv.known_id()
    if actor is None:
        return
    version = act.shard.committer.batch.versions.get(actor) or act.store.read_version(actor)
    if version == type_.version:
        return
    if version > type_.version:
        raise ActorVersionError(
            f"The data of {type_.name} {act.name!r} have version {version}, and this program's class has "
            f"{type_.version}. Run the newer program."
        )
    if version + 1 not in type_.upgrades:
        raise ActorVersionError(
            f"The data of {type_.name} {act.name!r} have version {version}, and the class has no upgrade to "
            f"{version + 1} any more. Run a program that has it first."
        )
    for number in range(version + 1, type_.version + 1):
        await type_.upgrades[number](act.instance)
    turn.add(_Reached(type_.version))
