"""Opens queues, after checking that the server can carry them.

Design: docs/design/postgres.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from functools import partial

from streamq.driver import (
    Capabilities,
    ChunkQueue,
    Driver,
    Finding,
    LatencyClass,
    QueueOptions,
    closed_error,
    translated_errors,
)

from ._errors import BACKEND, to_streamq
from ._queue import PostgresQueue
from ._settings import PostgresSettings
from .doctor._examination import judge
from .doctor._facts import ask
from .embedded import EmbeddedPostgres
from .requests._connection import Connection
from .requests._connector import Connector


class PostgresDriver(Driver[PostgresSettings]):
    """Rows of two tables, on PostgreSQL 14 or newer."""

    name = BACKEND
    summary = "PostgreSQL: many machines, a few milliseconds, fencing by row locks"
    capabilities = Capabilities(
        replay=True,
        fan_out=True,
        ordered=True,
        fenced=True,
        durable=True,
        cross_process=True,
        cross_host=True,
        expires=True,
        erases=True,
        max_record_bytes=16 * 2**20,
        latency=LatencyClass.MILLISECONDS,
    )
    settings_type = PostgresSettings

    @classmethod
    async def open(cls, options: QueueOptions, settings: PostgresSettings) -> ChunkQueue:
        """Connect, and create the schema if there is none.

        The queue declares ``durable`` only if the server writes every record to its disk before it
        acknowledges it (``fsync``, ``synchronous_commit``, no unlogged table), ``erases`` only with
        ``autovacuum``, and the shorter latency only where notifications arrive. After each
        reconnection it declares what the server of that moment can.

        Raises:
            BackendUnavailableError: The server cannot be reached in time, or is a standby.
            AccessDeniedError: It refuses our credentials, or lacks a schema that we may not create.
            ConfigurationError: It is too old, or has no such database, or its schema is of a newer
                streamq or of another application.
        """
        queue = PostgresQueue(options, settings, cls.capabilities)
        try:
            await queue.start()
        except BaseException:
            await queue.aclose()
            raise
        return queue

    @classmethod
    async def examine(cls, options: QueueOptions, settings: PostgresSettings) -> Sequence[Finding]:
        """Examine the server, the schema and our rights; change nothing."""
        async with _connected(settings) as (connector, connection):
            facts = await ask(connection, settings.schema_name)
            return judge(facts, settings, connector.address)

    @classmethod
    async def provision(cls, options: QueueOptions, settings: PostgresSettings) -> Sequence[str]:
        """Create the schema and what is in it, as far as it is missing.

        Raises:
            AccessDeniedError: We may not.
        """
        async with _connected(settings) as (connector, connection):
            facts = await ask(connection, settings.schema_name)
            is_whole = connection.server.schema_version and not any(
                each.endswith("itself") for each in facts.missing
            )
            if is_whole:
                return ()
            await connector.create_schema(connection)
        return (f"schema {settings.schema_name}, its tables and functions",)

    @classmethod
    def embedded(
        cls, settings: PostgresSettings
    ) -> contextlib.AbstractContextManager[Mapping[str, str]] | None:
        """Return an embedded server, unless a URL is configured."""
        return None if "url" in settings.model_fields_set else _embedded()


@contextlib.asynccontextmanager
async def _connected(
    settings: PostgresSettings,
) -> AsyncIterator[tuple[Connector, Connection]]:
    connector = Connector(settings)
    with translated_errors(partial(to_streamq, address=connector.address)):
        connection = await connector.connect()
        try:
            yield connector, connection
        finally:
            connection.end(closed_error(BACKEND))
            await connection.gone()


@contextlib.contextmanager
def _embedded() -> Iterator[Mapping[str, str]]:
    with EmbeddedPostgres() as server:
        yield {"STREAMQ_POSTGRES_URL": server.url}
