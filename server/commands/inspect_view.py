"""``actord inspect`` as lines of text. See ``inspect.document`` for what is shown."""

from __future__ import annotations

from typing import Any

from actord.server.commands.looking import json_text, plain
from actord.server.commands.running import actor

VALUE_CHARS = 200
WAITING_SHOWN = 5

Found = dict[str, Any]


def lines(found: Found) -> list[str]:
    shown = [actor(found["type"], found["name"])]
    stored = found["stored"]
    if stored is None:
        shown.append("  nothing is stored")
    else:
        shown += _stored(found, stored)
    server = found["server"]
    if server is None:
        shown.append("server: none runs")
    elif server["error"] is not None:
        shown.append(f"server: {plain(server['error'])}")
    else:
        shown += _server(server)
    return shown


def _stored(found: Found, stored: Found) -> list[str]:
    shown = [
        f"  stored      {_bytes(stored['bytes'])}, version {stored['version']}, "
        f"commit {stored['commit']} of shard {found['shard']}"
    ]
    alarm, events, messages = stored["alarm"], stored["events"], stored["messages"]
    if alarm is not None:
        state = f"FAILED: {plain(alarm['error'])}" if alarm["error"] is not None else "armed"
        retries = f", {alarm['retries']} runs failed" if alarm["retries"] else ""
        shown.append(f"  alarm       {alarm['due']}{retries}, {state}")
    if events["last"]:
        kept = f"{events['first']} to {events['last']}" if events["kept"] else f"none of {events['last']}"
        shown.append(f"  events      {kept}, {_bytes(events['bytes'])}")
    if stored["idempotency_keys"]["count"]:
        shown.append(
            f"  replies     kept for {stored['idempotency_keys']['count']:,} idempotency keys, "
            f"{_bytes(stored['idempotency_keys']['bytes'])}"
        )
    if any(messages.values()):
        shown.append(
            f"  messages    {messages['sent']:,} have not arrived, {messages['parked']:,} of them parked; "
            f"{messages['coming']:,} on their way to it"
        )
    keys = stored["keys"]
    shown.append(f"keys: {keys['count']:,}, {_bytes(keys['bytes'])}")
    names = min(40, max((len(plain(item["key"])) for item in keys["shown"]), default=0))
    sizes = max((len(_bytes(item["bytes"])) for item in keys["shown"]), default=0)
    types = max((len(item["type"]) for item in keys["shown"]), default=0)
    for item in keys["shown"]:
        shown.append(
            f"  {plain(item['key']):{names}}  {_bytes(item['bytes']):>{sizes}}  {item['type']:{types}}  "
            f"{_cut(json_text(item['value']))}"
        )
    if keys["count"] > len(keys["shown"]):
        shown.append(f"  and {keys['count'] - len(keys['shown']):,} more (--keys)")
    if stored["sql"] is not None:
        shown.append(f"SQL: {_bytes(stored['sql']['bytes'])}")
        for table in stored["sql"]["tables"]:
            rows = "?" if table["rows"] is None else f"{table['rows']:,}"
            shown.append(f"  {plain(table['name'])}  {rows} rows  ({plain(', '.join(table['columns']))})")
    return shown


def _server(server: Found) -> list[str]:
    shown = [
        f"server: {'in memory' if server['in_memory'] else 'not in memory'}, {server['mailbox']:,} calls wait, "
        f"{server['sockets']:,} sockets"
    ]
    if not server["in_program"]:
        shown.append("  the program has no such type")
    shown += waiting_lines(server)
    if server["calls"]:
        sampled = "" if server["sampled"] == 1 else f" (one of {server['sampled']} is looked at)"
        shown.append(f"last calls{sampled}:")
        shown += [call_line(call) for call in server["calls"]]
    return shown


def waiting_lines(server: Found) -> list[str]:
    """What runs, what that waits for, and who waits."""
    shown = [*_running(server["running"], 1)]
    for call in server["queued"][:WAITING_SHOWN]:
        caller = "" if call["from"] is None else f" from {actor(*call['from'])}"
        shown.append(f"  waits: {plain(call['method'])}{caller}, for {_ms(call['waited_ms'])}")
    if server["mailbox"] > WAITING_SHOWN:
        shown.append(f"  and {server['mailbox'] - WAITING_SHOWN:,} more wait")
    return shown


def _running(running: Found | None, depth: int) -> list[str]:
    if running is None:
        return []
    indent = "  " * depth
    shown = [f"{indent}runs: {plain(running['method'])}, for {_ms(running['ms'])} of {_ms(running['limit_ms'])}"]
    for wait in running["waits_for"]:
        shown.append(f"{indent}  which waits for {actor(wait['type'], wait['name'])}, for {_ms(wait['ms'])}")
        shown += _running(wait.get("running"), depth + 2)
    return shown


def call_line(call: Found) -> str:
    return (
        f"  {call['at']}  {plain(call['method']):20} {call['status']}  waited {_ms(call['waited_ms']):>9}  "
        f"ran {_ms(call['ran_ms']):>9}  committed {_ms(call['committed_ms']):>9}"
    )


def _ms(ms: float) -> str:
    return f"{ms / 1000:,.1f} s" if ms >= 1000 else f"{ms:.2f} ms"


def _bytes(count: int) -> str:
    return f"{count:,} bytes"


def _cut(text: str) -> str:
    return text if len(text) <= VALUE_CHARS else f"{text[:VALUE_CHARS]} ..."
