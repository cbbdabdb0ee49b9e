"""Connects, logs in, and asks what the server is.

Design: docs/design/postgres.md.
"""

from __future__ import annotations

import asyncio

import psycopg
from psycopg.types.numeric import Int8BinaryDumper

from streamq.driver import ConfigurationError
from streamq_postgres._errors import BACKEND, GivenUpError, RefusedError
from streamq_postgres._schema import SCHEMA_VERSION, creation, creation_of_schema
from streamq_postgres._settings import PostgresSettings

from ._connection import Connection, Row, Server
from ._dialing import Dialer, targets_of
from ._statements import GREETING

_CLIENT_NAME = "streamq"
_REFUSED_CREDENTIALS = ("28000", "28P01")
_TIDY = """
SELECT set_config('default_transaction_isolation', 'read committed', false),
    set_config('lock_timeout', %b || 'ms', false),
    CASE WHEN %b <> 'server' THEN set_config('synchronous_commit', %b, false) END
"""
_DEFAULTS = {
    # Only a server that can be written to: a standby, or a primary that has become one, is none.
    "target_session_attrs": "read-write",
    "application_name": _CLIENT_NAME,
    "client_encoding": "UTF8",
    "gssencmode": "disable",  # psycopg's own libpq may lack it, and warns if it finds a ticket
    # A peer that is gone without a word is noticed by the system, also while nothing is sent.
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
}


class Connector:
    """Makes the connections of one queue.

    Args:
        settings: Where the server is, who logs in, and how long that may take.

    Attributes:
        address: Where the server is, without credentials, for messages.
    """

    def __init__(self, settings: PostgresSettings) -> None:
        self._settings = settings
        targets = targets_of(settings.parameters())
        self._dialer = Dialer(targets, settings.connect_timeout_seconds)
        self._parameters = {
            name: value
            for name, value in settings.parameters().items()
            if name not in ("host", "hostaddr", "port", "connect_timeout")
        }
        self._source = settings.credential_source()
        self._given: dict[str, str] = {}
        self.address = ",".join(map(str, targets))

    async def connect(self) -> Connection:
        """Make a connection and log in, with the credentials that are valid now.

        Raises:
            psycopg.Error: The server cannot be reached in time, or refuses us.
            ConfigurationError: The source of credentials is unusable, or the server too old.
            BackendUnavailableError: The source of credentials fails for now.
        """
        try:
            return await self._connect_anew()
        except RefusedError as exc:
            if exc.code not in _REFUSED_CREDENTIALS or not self._source.is_dynamic:
                raise
            text, code, given = str(exc), exc.code, self._given
        try:
            # They may be being rotated: another try if there are others by now.
            if await self._source.get() != given:
                return await self._connect_anew()
        except RefusedError as exc:
            text, code = str(exc), exc.code
        raise RefusedError(text, code, is_passing=True)

    async def connect_again(self) -> Connection:
        """Make a connection with the latest credentials, without asking for new ones.

        Raises:
            psycopg.Error: The server cannot be reached in time, or refuses us.
        """
        return await self._connect()

    async def create_schema(self, connection: Connection) -> None:
        """Create the schema and what is in it, as far as it is missing.

        Raises:
            psycopg.Error: The server has refused.
        """
        name = self._settings.schema_name
        exists = await connection.run(
            "SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = %b", [name]
        )
        if not exists:
            # A role without CREATE on the database gets no further, and need not if it exists.
            await connection.run(creation_of_schema(name), is_script=True)
        await connection.run(creation(name), is_script=True)

    async def _connect_anew(self) -> Connection:
        self._given = await self._source.get()
        return await self._connect()

    async def _connect(self) -> Connection:
        parameters = _DEFAULTS | self._parameters
        for name, key in (("username", "user"), ("password", "password")):
            if self._given.get(name):
                parameters[key] = self._given[name]
        pgconn = await self._dialer.dial(parameters)
        client: psycopg.AsyncConnection[Row] = psycopg.AsyncConnection(pgconn)
        connection = Connection(client, self._settings.operation_timeout_seconds)
        # In a task of its own: psycopg would wait for seconds if a statement were cancelled.
        greeting = asyncio.create_task(self._greet(connection), name="streamq-postgres-greeting")
        try:
            connection.server = await asyncio.shield(greeting)
        except BaseException:
            connection.end(GivenUpError("not needed"))
            await asyncio.gather(greeting, return_exceptions=True)
            raise
        return connection

    async def _greet(self, connection: Connection) -> Server:
        client, schema = connection.client, self._settings.schema_name
        await client.set_autocommit(True)
        client.adapters.register_dumper(int, Int8BinaryDumper)  # each statement is prepared once
        (row,) = await connection.run(GREETING, [schema, schema])
        server = self._server_of(row, connection)
        if server.is_pooled:
            # The next statement may be run by another session, which has not prepared it.
            client.prepare_threshold = None
        else:
            commits = self._settings.synchronous_commit
            await connection.run(_TIDY, [str(self._settings.lock_ms), commits, commits])
        if server.is_too_old:
            raise ConfigurationError(
                f"the server at {self.address} has version {server.version // 10_000}; PostgreSQL "
                "14 or newer is needed",
                backend=BACKEND,
            )
        return server

    def _server_of(self, row: Row, connection: Connection) -> Server:
        process, is_standby, started, version, fsync, commits, vacuums, is_logged, comment = row
        wanted, pooler = self._settings.synchronous_commit, self._settings.pooler
        commits = commits if wanted == "server" else wanted
        # A pooler makes up the process id that it tells its clients.
        is_pooled = connection.client.info.backend_pid != process if pooler is None else pooler
        return Server(
            version=version,
            identity=started,
            is_standby=is_standby,
            is_pooled=is_pooled,
            is_durable=fsync == "on" and commits != "off" and is_logged is not False,
            vacuums=vacuums == "on",
            schema_version=version_of(comment, self.address),
        )


def version_of(comment: str | None, address: str) -> int:
    """Return the version of a schema by the comment of its table; 0 if there is none.

    Raises:
        ConfigurationError: The table is of another application, or of a newer streamq.
    """
    if comment is None:
        return 0
    start, _, number = comment.rpartition(" ")
    if start != "streamq schema version" or not number.isdigit():
        raise ConfigurationError(
            f"the schema at {address} has a table streams of another application (its comment is "
            f"{comment[:50]!r}); set STREAMQ_POSTGRES_SCHEMA_NAME to another schema",
            backend=BACKEND,
        )
    if int(number) > SCHEMA_VERSION:
        raise ConfigurationError(
            f"the schema at {address} has version {number}, this streamq knows {SCHEMA_VERSION}; "
            "upgrade streamq, or set STREAMQ_POSTGRES_SCHEMA_NAME to another schema",
            backend=BACKEND,
        )
    return int(number)
