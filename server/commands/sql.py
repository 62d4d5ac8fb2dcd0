"""``actord sql``: questions over all that is stored, and over one actor's own SQL database. Nothing is changed."""

from __future__ import annotations

import base64
import math
import sys
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from actord import codec
from actord import json as edge
from actord.errors import CodecError
from actord.server.commands.looking import Place, json_text, parsed, plain
from actord.server.commands.serve import AppArgument, DataDirOption
from actord.server.exits import FAILED, USAGE, StartError

if TYPE_CHECKING:
    from actord.storage.look import Look

LIMIT = 1_000
SECONDS = 30.0
_STEPS = 20_000  # of SQLite's machine between two looks at the clock: some milliseconds at most
_SHOWN_CHARS = 120
_INT_MAX = (1 << 63) - 1


class Answer(NamedTuple):
    columns: list[str]
    rows: list[tuple[Any, ...]]


def sql(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="One SELECT.")],
    app: AppArgument = None,
    actor: Annotated[
        str | None, typer.Option("--actor", metavar="TYPE/NAME", help="Ask this actor's own SQL database.")
    ] = None,
    shard: Annotated[int | None, typer.Option(min=0, help="Look at this shard alone.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="At most so many rows.")] = LIMIT,
    timeout: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="At most so long.")] = SECONDS,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")] = False,
    data_dir: DataDirOption = None,
) -> None:
    """Ask what is stored, in SQL; read-only.

    Examples:

        actord sql "select type, count(*) from actor group by type"
        actord sql "select name, decode(value) from kv where type = 'Account' and key = 'balance'"
        actord sql --actor Order/17 "select * from line"

    Tables, each with the column `shard`: actor, kv, alarm, event, event_log, reply, outbox, inbox, version, page, meta.
    `decode(value)` is a stored value: a number or a text as such, anything else as JSON. A server may run: it does
    not notice. Exit code 1: the query failed, 2: it is no query, or it would change something.
    """
    place = Place(app, data_dir)
    if shard is not None and not shard < place.shards:
        raise typer.BadParameter(f"there are {place.shards} shards, from 0 on.", param_hint="--shard")
    end = monotonic() + timeout
    if actor is None:
        answer = place.look(None if shard is None else [shard], lambda look: _ask(look, query, limit + 1, end))
    else:
        answer = _ask_actor(place, parsed(actor), query, limit + 1, end)
    if as_json:
        _print_json(answer.columns, answer.rows[:limit])
    else:
        _print_table(answer.columns, answer.rows[:limit])
    if len(answer.rows) > limit:
        print(f"actord: there are more; these are the first {limit} rows (--limit)", file=sys.stderr)


# -- all shards


def _ask(look: Look, query: str, count: int, end: float) -> Answer:
    import apsw
    import apsw.ext
    from actord.storage.look_views import make_views

    make_views(look)
    conn = look.conn
    decode: Any = _decode
    conn.create_scalar_function("decode", decode, 1, deterministic=True)
    conn.authorizer = _authorizer()
    conn.set_progress_handler(lambda: monotonic() > end, _STEPS)
    try:
        about = apsw.ext.query_info(conn, query)
        if about.query_remaining is not None or not about.description:
            raise StartError("This is not one SELECT.", USAGE)
        columns = [str(column[0]) for column in about.description]
    except apsw.AuthError:
        raise _changes() from None
    except apsw.InterruptError:
        raise _too_long() from None
    except (apsw.Error, ValueError) as error:
        raise StartError(f"The query can't be run: {error}.", USAGE) from None
    try:
        with_rows = conn.execute(query, can_cache=False)
        rows = [tuple(row) for row in islice(with_rows, count)]
        with_rows.close(True)
        return Answer(columns, rows)
    except apsw.InterruptError:
        raise _too_long() from None
    except CodecError as error:
        raise StartError(f"decode: {error.detail}", FAILED) from None
    except (apsw.Error, UnicodeDecodeError) as error:
        raise StartError(f"The query failed: {error}.", FAILED) from None


def _authorizer() -> Any:
    import apsw

    reading = {apsw.SQLITE_SELECT, apsw.SQLITE_READ, apsw.SQLITE_FUNCTION, apsw.SQLITE_RECURSIVE}

    def allowed(action: int, first: str | None, second: str | None, database: str | None, within: str | None) -> int:
        return apsw.SQLITE_OK if action in reading else apsw.SQLITE_DENY

    return allowed


def _decode(raw: Any) -> Any:
    """A stored value as SQL has it. Raises ``CodecError``."""
    if raw is None:
        return None
    if not isinstance(raw, bytes):
        raise CodecError(f"what is to be decoded is a blob, as in kv.value, and not {raw!r:.40}")
    value = codec.decode(raw)
    kind = type(value)
    if value is None or kind in (str, float, bool, bytes) or (kind is int and -_INT_MAX <= value <= _INT_MAX):
        return value
    try:
        text = edge.dumps(value).decode()
    except CodecError:
        return repr(value)
    # what is one text in JSON, as a date, is that text
    return edge.loads(text) if text.startswith('"') else text


# -- one actor's own


def _ask_actor(place: Place, key: tuple[str, str], query: str, count: int, end: float) -> Answer:
    import sqlite3

    from actord.server.commands.actor_sql import opened, read_only
    from actord.server.commands.running import actor
    from actord.shards.slots import slot_of
    from actord.storage import look_actor

    number = place.shard(key)

    def work(look: Look) -> bytes | None:
        id_ = look_actor.find(look, number, slot_of(*key), *key)
        return None if id_ is None else look_actor.sql_image(look, number, id_)[0]

    image = place.look([number], work)
    if image is None:
        raise StartError(f"{actor(*key)} has no SQL database: it has never written to one.", FAILED)
    database = opened(image)
    read_only(database)
    database.conn.set_progress_handler(lambda: monotonic() > end, _STEPS)
    try:
        cursor = database.execute(query)
        if cursor.description is None:
            raise StartError("This is not one SELECT.", USAGE)
        return Answer([column[0] for column in cursor.description], list(islice(cursor, count)))
    except sqlite3.OperationalError as error:
        if str(error) == "interrupted":
            raise _too_long() from None
        raise StartError(f"The query can't be run: {error}.", USAGE) from None
    except (sqlite3.ProgrammingError, sqlite3.Warning):  # several statements
        raise StartError("This is not one SELECT.", USAGE) from None
    except sqlite3.DatabaseError as error:
        if "not authorized" in str(error) or "prohibited" in str(error):
            raise _changes() from None
        raise StartError(f"The query failed: {error}.", FAILED) from None
    except ValueError as error:
        raise StartError(f"The query can't be run: {error}.", USAGE) from None


def _changes() -> StartError:
    return StartError("`actord sql` only reads: give it one SELECT.", USAGE)


def _too_long() -> StartError:
    return StartError("The query took too long (--timeout).", FAILED)


# -- the output


def _print_json(columns: list[str], rows: list[tuple[Any, ...]]) -> None:
    names: list[str] = []
    for name in columns:
        twice = sum(name == other or other.rpartition("_")[0] == name for other in names)
        names.append(f"{name}_{twice + 1}" if name in names else name)
    for row in rows:
        print(json_text({name: _json(value) for name, value in zip(names, row, strict=True)}))


def _json(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value


def _print_table(columns: list[str], rows: list[tuple[Any, ...]]) -> None:
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip([plain(name) for name in columns], *cells, strict=True)]
    right = [
        bool(rows) and all(isinstance(row[i], int | float | type(None)) for row in rows) for i in range(len(columns))
    ]
    head = [plain(name).ljust(width) for name, width in zip(columns, widths, strict=True)]
    print("  ".join(head).rstrip())
    print("  ".join("-" * width for width in widths))
    for row in cells:
        shown = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True))
        print("  ".join(shown).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = f"x'{value.hex()}'" if isinstance(value, bytes) else plain(str(value))
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]} ..."
