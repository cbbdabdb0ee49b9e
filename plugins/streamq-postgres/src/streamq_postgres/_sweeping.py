"""Removes streams, those that are deleted and those that have expired, in steps.

A step is one transaction of a bounded size: no writer waits for all of a large stream, and a
statement never takes so long that its deadline ends it.

Design: docs/design/postgres.md.
"""

from __future__ import annotations

import asyncio
import contextlib

import psycopg

from streamq.driver import StreamId, StreamqError

from ._naming import names_of
from .requests._connection_group import SharedConnection
from .requests._statements import Statements

_STEP_RECORDS = 2_000
_STEP_STREAMS = 100
_ERASE_SECONDS = 20.0


class Remover:
    """Removes streams of one queue's schema.

    Args:
        connection: The connection for requests.
        statements: The statements for the schema.
        sweep_seconds: How often a process that writes removes something.
    """

    def __init__(
        self, connection: SharedConnection, statements: Statements, sweep_seconds: float
    ) -> None:
        self._connection = connection
        self._statements = statements
        self._sweep_seconds = sweep_seconds
        self._loop = asyncio.get_running_loop()
        self._next_sweep = self._loop.time() + sweep_seconds
        self._sweeping: asyncio.Task[None] | None = None

    async def delete(self, stream: StreamId) -> None:
        """Hide a stream at once, and remove its records; those that take long, others remove.

        Raises:
            psycopg.Error: The server has refused, or cannot be reached.
        """
        bury, erase = self._statements.bury, self._statements.erase
        rows = await self._connection.run(lambda to: to.run(bury, names_of(stream)))
        until = self._loop.time() + _ERASE_SECONDS
        for (buried,) in rows:
            values = [buried, _STEP_RECORDS]
            while self._loop.time() < until:
                ((is_done,),) = await self._connection.run(lambda to: to.run(erase, values))  # noqa: B023
                if is_done:
                    break

    async def step(self) -> tuple[int, bool]:
        """Remove some of what has expired or is still to be removed.

        Returns:
            How many streams have gone, and whether nothing is left.

        Raises:
            psycopg.Error: The server has refused, or cannot be reached.
        """
        values = [_STEP_STREAMS, _STEP_RECORDS]
        sweep = self._statements.sweep
        ((gone, is_done),) = await self._connection.run(lambda to: to.run(sweep, values))
        return gone, is_done

    def remind(self) -> None:
        """Remove a little, if it is time: whoever writes makes room as well."""
        now = self._loop.time()
        if now < self._next_sweep or (self._sweeping is not None and not self._sweeping.done()):
            return
        self._next_sweep = now + self._sweep_seconds
        self._sweeping = asyncio.create_task(self._sweep_a_little(), name="streamq-postgres-sweep")

    async def gone(self) -> None:
        """Wait until nothing is being removed, after the connection was closed."""
        if self._sweeping is not None:
            await asyncio.wait({self._sweeping})

    async def _sweep_a_little(self) -> None:
        until = self._loop.time() + self._sweep_seconds / 4
        # A sweep that fails is none that anybody has asked for; the next one goes on.
        with contextlib.suppress(psycopg.Error, OSError, StreamqError):
            while self._loop.time() < until:
                _, is_done = await self.step()
                if is_done:
                    return
