"""What a line of the log belongs to: type, name and method of the turn that wrote it, its call's id, its trace.

1. A call pays nothing for it: everything is found out when a line is written.
2. ``call`` is the request's ``X-Request-Id``; without one it is made with the first line, and goes on to the calls that
   this one makes from then on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from actord.shards.call import TRACED, Trace, current_turn
from actord.shards.outbound import current_visit

if TYPE_CHECKING:
    from actord.shards.call import Call


def fields() -> dict[str, Any]:
    """For the line that is written now; empty outside of turns and of requests to the front door."""
    turn = current_turn.get()
    if turn is not None:
        return fields_of(turn)
    visit = current_visit.get()
    if visit is None:
        return {}
    if visit.trace is None:
        visit.trace = Trace()
    return visit.trace.named()


def fields_of(turn: Call) -> dict[str, Any]:
    if not turn.flags & TRACED:
        turn.trace = Trace()
        turn.flags |= TRACED
    act = turn.act
    return {
        "type": act.host.type.name,
        "actor": act.name,
        "method": turn.method.name,
        **turn.trace.named(),
    }
