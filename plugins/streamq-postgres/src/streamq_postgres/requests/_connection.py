"""Runs statements on one connection to the server, one after the other.

A statement is never cancelled in the middle: psycopg would ask the server to cancel it, and wait
for that. A connection that has to end is shut down at its socket instead, which ends the statement
under way with an error.

Design: docs/design/postgres.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, LiteralString, TypeAlias

import psycopg
import psycopg.errors as pe
from psycopg import sql

from streamq_postgres._errors import GivenUpError, speaks_of_server

Row: TypeAlias = tuple[Any, ...]
Query: TypeAlias = sql.Composed | LiteralString | bytes

_OLDEST_VERSION = 140_000
_GRACE_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Server:
    """The facts that a server states about itself when a connection is made.

    Attributes:
        version: Its version, such as 150018.
        identity: When it was started: another one answers if that differs.
        is_standby: Whether it is in recovery, so that it can only be read from.
        is_pooled: Whether something between us and the server lends it from session to session.
        is_durable: Whether it writes a record to its disk before it acknowledges the append.
        vacuums: Whether it removes what deleted rows have left.
        schema_version: Version of the schema; 0 if there is none.
    """

    version: int
    identity: str
    is_standby: bool
    is_pooled: bool
    is_durable: bool
    vacuums: bool
    schema_version: int

    @property
    def is_too_old(self) -> bool:
        """Whether procedures of this server cannot do what is needed."""
        return self.version < _OLDEST_VERSION


class Connection:
    """One connection of psycopg, with a deadline for each statement.

    Args:
        client: The connection, in autocommit mode.
        patience: Seconds to wait for an answer.
    """

    server: Server

    def __init__(self, client: psycopg.AsyncConnection[Row], patience: float) -> None:
        self._client = client
        self._patience = patience
        self._reason: Exception | None = None
        self._on_lost: Callable[[Exception], None] | None = None
        self._process = os.getpid()
        self._is_busy = False
        self._statements = 0
        self._wake: asyncio.Event | None = None
        self._number = -1
        self._released = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    @property
    def is_open(self) -> bool:
        """Whether statements can be sent."""
        return self._reason is None and not self._client.closed

    @property
    def was_given_up(self) -> bool:
        """Whether the connection ended because of what another one had learnt."""
        return isinstance(self._reason, GivenUpError)

    @property
    def client(self) -> psycopg.AsyncConnection[Row]:
        """The connection of psycopg, for what is no statement."""
        return self._client

    def watch(self, on_lost: Callable[[Exception], None]) -> None:
        """Call a function with what this connection learns against its server."""
        self._on_lost = on_lost

    async def run(
        self, query: Query, values: Sequence[object] = (), *, is_script: bool = False
    ) -> list[Row]:
        """Run a statement, and return its rows.

        Only one task at a time may call this, and it must not be cancelled.

        Args:
            query: The statement.
            values: Its parameters.
            is_script: Whether it is several statements, in one transaction.

        Raises:
            psycopg.Error: The server has refused, or the connection has ended.
            StreamqError: The connection was ended with this.
        """
        if self._reason is not None:
            raise self._reason.with_traceback(None)
        self._statements += 1
        timer = self._loop.call_later(self._patience, self._expire, self._statements)
        self._is_busy = True
        try:
            cursor = await self._client.execute(query, values or None, binary=not is_script)
            return await cursor.fetchall() if cursor.description else []
        except (psycopg.Error, OSError) as exc:
            if self._reason is None and (self._client.closed or speaks_of_server(exc)):
                self.lose(exc)
            if self._reason is None or self._reason is exc:
                raise
        finally:
            timer.cancel()
            self._is_busy = False
            if self._reason is not None:
                self._release()
        raise self._reason.with_traceback(None)

    async def wait(
        self, wake: asyncio.Event, seconds: float, on_notification: Callable[[str], None]
    ) -> None:
        """Wait for an event, and take notifications meanwhile; the end of the connection sets it.

        Args:
            wake: The event; it may be set before.
            seconds: Longest time to wait.
            on_notification: Called with what each notification says.
        """
        if self._reason is not None:
            return
        self._wake = wake
        self._take(on_notification)
        self._number = number = self._client.fileno()
        self._loop.add_reader(number, self._on_readable, on_notification)
        timer = self._loop.call_later(seconds, wake.set)
        try:
            await wake.wait()
        finally:
            timer.cancel()
            self._wake = None
            if self._reason is None:
                self._loop.remove_reader(number)

    def lose(self, reason: Exception) -> None:
        """End the connection because its server should not be used now, by any other one either."""
        if self._reason is None:
            self.end(reason)
            if self._on_lost is not None:
                self._on_lost(reason)

    def end(self, reason: Exception) -> None:
        """End the connection; the statement under way and later ones raise the reason."""
        if self._reason is None:
            self._reason = reason
            if self._is_busy:
                shut_down(self._client)  # the statement ends with an error, and then releases
            else:
                self._release()

    def abandon(self) -> None:
        """Release the connection where its event loop has ended."""
        if self._process == os.getpid():
            self._client.pgconn.finish()

    async def gone(self) -> None:
        """Wait until the connection is released after :meth:`end`."""
        await self._released.wait()

    def _expire(self, statement: int, *, is_sure: bool = False) -> None:
        if not self._is_busy or statement != self._statements:
            return
        if is_sure:
            self.lose(pe.OperationalError(f"no answer within {self._patience:g} s"))
        else:
            # The answer may be in the socket, if this process has been too busy to read it.
            again = partial(self._expire, statement, is_sure=True)
            self._loop.call_later(_GRACE_SECONDS, again)

    def _on_readable(self, on_notification: Callable[[str], None]) -> None:
        try:
            self._client.pgconn.consume_input()
            self._take(on_notification)
        except psycopg.Error as exc:
            self.lose(exc)

    def _take(self, on_notification: Callable[[str], None]) -> None:
        while found := self._client.pgconn.notifies():
            on_notification(found.extra.decode())

    def _release(self) -> None:
        if self._wake is not None:
            self._loop.remove_reader(self._number)  # libpq may have closed it already
            self._wake.set()
        self._client.pgconn.finish()
        self._released.set()


def shut_down(client: psycopg.AsyncConnection[Any]) -> None:
    """End both directions of a connection's socket, so that whoever waits on it gets an error."""
    with (
        contextlib.suppress(OSError, psycopg.Error),
        socket.socket(fileno=os.dup(client.fileno())) as twin,
    ):
        twin.shutdown(socket.SHUT_RDWR)
