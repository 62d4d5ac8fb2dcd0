"""What an actor's SQL may not do, as data: refused statements, allowed pragmas and modules, limits of SQLite.

1. The transaction is the turn: nothing else begins, ends or marks one.
2. A connection may be closed between any two turns, so nothing may live in it that is not in the database: no
   temporary tables, no pragma that sets the connection's own state.
3. No statement reaches a file, another database or native code, or edits the schema by hand.
"""

from __future__ import annotations

import apsw
from actord.errors import SqlNotAllowedError, SqlTransactionControlError
from actord.limits import SQL_LENGTH_BYTES, SQL_STATEMENT_BYTES

Refusal = tuple[type[SqlNotAllowedError], str]

_PRAGMAS_WITH_ARGUMENT = frozenset(
    {
        "application_id",
        "defer_foreign_keys",
        "foreign_key_check",
        "foreign_key_list",
        "index_info",
        "index_list",
        "index_xinfo",
        "integrity_check",
        "optimize",
        "quick_check",
        "table_info",
        "table_list",
        "table_xinfo",
        "user_version",
    }
)
_PRAGMAS_TO_READ = frozenset(
    {
        "collation_list",
        "compile_options",
        "data_version",
        "encoding",
        "foreign_keys",
        "freelist_count",
        "function_list",
        "module_list",
        "page_count",
        "page_size",
        "pragma_list",
        "schema_version",
    }
)
_MODULES = frozenset({"fts5", "fts5vocab", "geopoly", "rtree", "rtree_i32"})
_FUNCTIONS = frozenset({"fts3_tokenizer", "load_extension"})

_CONTROL = "the turn is the transaction, use transaction_sync for a part of it"
_TEMPORARY = "temporary tables, views and triggers would be gone with the instance; make ordinary ones"
_ATTACH = "an instance has one database"
_REFUSED: dict[int, Refusal] = {
    apsw.SQLITE_TRANSACTION: (SqlTransactionControlError, _CONTROL),
    apsw.SQLITE_SAVEPOINT: (SqlTransactionControlError, _CONTROL),
    apsw.SQLITE_ATTACH: (SqlNotAllowedError, _ATTACH),
    apsw.SQLITE_DETACH: (SqlNotAllowedError, _ATTACH),
    apsw.SQLITE_CREATE_TEMP_INDEX: (SqlNotAllowedError, _TEMPORARY),
    apsw.SQLITE_CREATE_TEMP_TABLE: (SqlNotAllowedError, _TEMPORARY),
    apsw.SQLITE_CREATE_TEMP_TRIGGER: (SqlNotAllowedError, _TEMPORARY),
    apsw.SQLITE_CREATE_TEMP_VIEW: (SqlNotAllowedError, _TEMPORARY),
}

LIMITS = {
    apsw.SQLITE_LIMIT_LENGTH: SQL_LENGTH_BYTES,
    apsw.SQLITE_LIMIT_SQL_LENGTH: SQL_STATEMENT_BYTES,
    apsw.SQLITE_LIMIT_COLUMN: 500,
    apsw.SQLITE_LIMIT_EXPR_DEPTH: 200,
    apsw.SQLITE_LIMIT_COMPOUND_SELECT: 100,
    apsw.SQLITE_LIMIT_VDBE_OP: 1_000_000,
    apsw.SQLITE_LIMIT_FUNCTION_ARG: 127,
    apsw.SQLITE_LIMIT_ATTACHED: 0,
    apsw.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1_000,
    apsw.SQLITE_LIMIT_TRIGGER_DEPTH: 100,
    apsw.SQLITE_LIMIT_WORKER_THREADS: 0,
}


def refusal(action: int, first: str | None, second: str | None) -> Refusal | None:
    """Why SQLite's authorizer must refuse this part of a statement, or None."""
    found = _REFUSED.get(action)
    if found is not None:
        return found[0], f"{first or 'the statement'} is not allowed: {found[1]}"
    if action == apsw.SQLITE_PRAGMA:
        name = (first or "").lower()
        if name in _PRAGMAS_WITH_ARGUMENT or (name in _PRAGMAS_TO_READ and second is None):
            return None
        return SqlNotAllowedError, f"PRAGMA {name}{'' if second is None else ' = …'} is not allowed"
    if action == apsw.SQLITE_FUNCTION and (second or "").lower() in _FUNCTIONS:
        return SqlNotAllowedError, f"{second}() is not allowed"
    if action == apsw.SQLITE_CREATE_VTABLE and (second or "").lower() not in _MODULES:
        return (
            SqlNotAllowedError,
            f"virtual tables of {second} are not allowed; of {', '.join(sorted(_MODULES))} they are",
        )
    return None
