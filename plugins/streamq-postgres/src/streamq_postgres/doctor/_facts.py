"""Asks a server for facts about itself, and about the rights that we have there.

Design: docs/design/postgres.md.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from streamq_postgres._schema import ROUTINES, TABLES
from streamq_postgres.requests._connection import Connection, Server

_SETTINGS = (
    *("fsync", "full_page_writes", "synchronous_commit", "autovacuum", "wal_level"),
    "synchronous_standby_names",
)

# A server of another kind may lack a function: each question is a statement of its own.
_CLOCK = "SELECT extract(epoch FROM clock_timestamp())::double precision"
_CONFIGURED = "SELECT current_setting(%b, true)"
_CONNECTIONS = """
SELECT current_setting('max_connections')::bigint,
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')
"""
_STANDBYS = "SELECT count(*) FROM pg_stat_replication"
_ENCRYPTED = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
_BACKLOG = "SELECT pg_notification_queue_usage()"
_MAY_CREATE = "SELECT has_database_privilege(current_database(), 'CREATE')"
_USAGE = "SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = %b"
_ON_TABLES = """
SELECT c.relname, p.wanted, has_table_privilege(c.oid, p.wanted)
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p (wanted)
WHERE n.nspname = %b AND c.relname = ANY(%b)
"""
_ON_ROUTINES = """
SELECT r.proname, has_function_privilege(r.oid, 'EXECUTE')
FROM pg_proc AS r JOIN pg_namespace AS n ON n.oid = r.pronamespace
WHERE n.nspname = %b AND r.proname = ANY(%b)
"""
_NEEDED = {
    "streams": ("SELECT", "INSERT", "UPDATE", "DELETE"),
    "records": ("SELECT", "INSERT", "DELETE"),
    # Rows are locked with FOR UPDATE, which needs the right to update.
    "buried": ("SELECT", "INSERT", "UPDATE", "DELETE"),
}


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts that a server states about itself.

    Attributes:
        server: From the greeting.
        configured: Values of settings.
        ahead_seconds: By how much the server's clock is ahead of this host's.
        connections: How many there are, and how many there may be.
        standbys: How many follow it.
        is_encrypted: Whether our connection is.
        backlog: Share of the room for notifications that is in use.
        may_create: Whether we may create a schema.
        missing: Rights, tables and functions that we lack, in words.
    """

    server: Server
    configured: Mapping[str, str]
    ahead_seconds: float = 0.0
    connections: tuple[int, int] = (0, 100)
    standbys: int = 0
    is_encrypted: bool = False
    backlog: float = 0.0
    may_create: bool = False
    missing: tuple[str, ...] = field(default=())


async def ask(connection: Connection, schema: str) -> Facts:
    """Return the facts.

    Raises:
        psycopg.Error: The connection was lost.
    """
    before = time.time()
    ((now,),) = await connection.run(_CLOCK)
    after = time.time()
    configured = {}
    for name in _SETTINGS:
        ((value,),) = await connection.run(_CONFIGURED, [name])
        configured[name] = value or ""
    ((most, used),) = await connection.run(_CONNECTIONS)
    ((standbys,),) = await connection.run(_STANDBYS)
    encrypted = await connection.run(_ENCRYPTED)
    ((backlog,),) = [(0.0,)] if connection.server.is_standby else await connection.run(_BACKLOG)
    ((may_create,),) = await connection.run(_MAY_CREATE)
    missing = await _missing(connection, schema) if connection.server.schema_version else ()
    return Facts(
        connection.server,
        configured,
        ahead_seconds=now - min(max(now, before), after),  # it was read some time between both
        connections=(used, most),
        standbys=standbys,
        is_encrypted=encrypted == [(True,)],
        backlog=backlog,
        may_create=may_create,
        missing=missing,
    )


async def _missing(connection: Connection, schema: str) -> tuple[str, ...]:
    found: list[str] = []
    if await connection.run(_USAGE, [schema]) != [(True,)]:
        found.append("USAGE on the schema")
    rows = await connection.run(_ON_TABLES, [schema, list(TABLES)])
    granted = {(table, right) for table, right, has in rows if has}
    known = {row[0] for row in rows}
    for table, rights in _NEEDED.items():
        if table not in known:
            found.append(f"the table {table} itself")
        elif lacking := [right for right in rights if (table, right) not in granted]:
            found.append(f"{', '.join(lacking)} on the table {table}")
    rows = await connection.run(_ON_ROUTINES, [schema, list(ROUTINES)])
    routines = {str(name): bool(may_run) for name, may_run in rows}
    for routine in ROUTINES:
        if routine not in routines:
            found.append(f"the function {routine} itself")
        elif not routines[routine]:
            found.append(f"EXECUTE on the function {routine}")
    return tuple(found)
