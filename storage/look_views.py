"""The tables of all shards as one: temporary views on the connection of a look, each with the column ``shard``.

Only what is in ``VIEWS`` is promised to stay; the tables of a shard themselves (``s0.kv`` ...) are the store's own.
A table that an older format lacks has no rows.
"""

from __future__ import annotations

from actord.storage import pages
from actord.storage.look import Look

_WHOSE = "actor.type AS type, actor.name AS name"
_JOIN = "LEFT JOIN {schema}.actor AS actor ON actor.id = t.{column}"

_EVENT = f"t.actor, {_WHOSE}, t.seq, t.kind, CAST(t.data AS TEXT) AS data, t.until, t.batch AS commit_seq"

# View -> (table, column that names the actor or "", its columns over ``t``).
VIEWS: dict[str, tuple[str, str, str]] = {
    "actor": ("actor", "", "t.id AS actor, t.type, t.name, t.slot"),
    "kv": ("kv", "actor", f"t.actor, {_WHOSE}, t.key, t.value"),
    "alarm": ("alarm", "actor", f"t.actor, {_WHOSE}, t.due, t.scheduled, t.retries, t.error"),
    "event": ("event", "actor", _EVENT),
    "event_log": ("event_log", "actor", f"t.actor, {_WHOSE}, t.first, t.last"),
    "reply": ("reply", "actor", f"t.actor, {_WHOSE}, t.key, t.at, t.status, t.head, t.body"),
    "outbox": (
        "outbox",
        "sender",
        "t.id, t.sender AS actor, actor.type AS from_type, actor.name AS from_name, t.type, t.name, t.method, t.args, "
        "t.due, t.attempts, t.error",
    ),
    "inbox": ("inbox", "", "t.shard AS from_shard, t.id"),
    "version": ("version", "actor", f"t.actor, {_WHOSE}, t.version"),
    "page": (
        "page",
        f"id >> {pages.NUMBER_BITS}",
        f"t.id >> {pages.NUMBER_BITS} AS actor, {_WHOSE}, t.id & {pages.LAST_NUMBER} AS number, "
        "length(t.data) AS bytes",
    ),
    # The commit number stands in the newest row of ``redo``: which one that is, the look knows.
    "meta": ("meta", "", "t.name, CASE t.name WHEN 'commit_seq' THEN {commit} ELSE t.value END AS value"),
}


def make_views(look: Look) -> None:
    """Make them. ``look.conn`` must not have an authorizer yet."""
    tables = {shard: look.tables(shard) for shard in look.shards}
    for view, (table, column, columns) in VIEWS.items():
        place = "temp.s{}_kv" if table == "kv" else f"s{{}}.{table}"
        parts = [
            f"SELECT {shard} AS shard, {columns.format(commit=look.commits[shard])} FROM {place.format(shard)} AS t "
            + (_JOIN.format(schema=f"s{shard}", column=column) if column else "")
            for shard in look.shards
            if table in tables[shard]
        ]
        if not parts:
            names = [part.rpartition(" ")[2].rpartition(".")[2].strip('"') for part in columns.split(",")]
            parts = ["SELECT 0 AS shard, " + ", ".join(f'NULL AS "{name}"' for name in names) + " WHERE 0"]
        look.conn.execute(f"CREATE TEMP VIEW {view} AS {' UNION ALL '.join(parts)}")
