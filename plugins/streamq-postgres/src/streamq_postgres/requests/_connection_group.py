"""Keeps the connections of one queue on the same server, and gives that server up for all of them.

An address may lead to another server while the old one keeps its connections: as a standby that
refuses to write, as a node that the network has cut off, or as a primary that nobody else uses any
more. What one connection learns ends all of them, so that the next call connects anew:

* an answer that speaks of the server and not of the statement, such as "read only";
* the loss of a connection, also by an answer that did not come in time;
* a connection to a server that is not the one of the other connections;
* the lookout, which connects now and then and compares.

Design: docs/design/postgres.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

import psycopg

from streamq.driver import ConnectOnce, StreamqError, closed_error
from streamq_postgres._errors import BACKEND, GivenUpError

from ._connection import Connection, Server
from ._connector import Connector

T = TypeVar("T")

_DROP_SECONDS = 0.5
"""Shortest interval between two times that all connections are dropped.

Many writers whose tries are refused must not keep readers of the same queue from connecting.
"""


class ConnectionGroup:
    """The connections of one queue.

    Args:
        connector: Makes connections.
        lookup_seconds: Interval of the lookout.
        on_server: Called with the server of each new connection.
    """

    def __init__(
        self, connector: Connector, lookup_seconds: float, on_server: Callable[[Server], None]
    ) -> None:
        self.connector = connector
        self._lookup_seconds = lookup_seconds
        self._on_server = on_server
        self._members: list[SharedConnection] = []
        self._given_up_at = -math.inf
        self._dropped_at = -math.inf
        self._later: asyncio.TimerHandle | None = None
        self._lookout: asyncio.Task[None] | None = None
        self._is_closed = False
        self._loop = asyncio.get_running_loop()

    def member(self) -> SharedConnection:
        """Add a connection."""
        member = SharedConnection(self)
        self._members.append(member)
        return member

    def has_dropped_since(self, moment: float) -> bool:
        """Whether connections that were begun at a moment have been dropped since."""
        return self._dropped_at >= self._given_up_at > moment

    def welcome(self, new: Connection, begun_at: float) -> None:
        """Note what the server of a new connection is; give up the one of the others if it differs.

        Standbys behind one address are none that it has moved to.

        Args:
            new: The connection.
            begun_at: When connecting began.
        """
        self._on_server(new.server)
        self._compare(new, begun_at)
        if self._lookout is None and not self._is_closed:
            self._lookout = asyncio.create_task(self._look_out(), name="streamq-postgres-lookout")

    def on_lost(self, reason: Exception) -> None:
        """Drop all connections that were begun before now, at once or soon.

        Args:
            reason: What one of them has learnt.
        """
        self._give_up(str(reason) or type(reason).__name__, self._loop.time())

    def close(self) -> None:
        """Close all connections for good; every waiting caller gets ``ClosedError``."""
        self._is_closed = True
        if self._later is not None:
            self._later.cancel()
        if self._lookout is not None:
            self._lookout.cancel()
        for member in self._members:
            member.close()

    def abandon(self) -> None:
        """Release the connections where their event loop has ended."""
        for member in self._members:
            member.abandon()

    async def gone(self) -> None:
        """Wait until all connections are released after :meth:`close`."""
        if self._lookout is not None:
            await asyncio.wait({self._lookout})
        for member in self._members:
            await member.aclose()

    def _compare(self, new: Connection, begun_at: float) -> None:
        if new.server.is_standby:
            return
        for member in self._members:
            known = member.current
            if known is not None and known is not new and differ(known.server, new.server):
                self._give_up("its address leads to another server now", begun_at)
                return

    def _give_up(self, reason: str, moment: float) -> None:
        if self._is_closed:
            return
        self._given_up_at = max(self._given_up_at, moment)
        wait = self._dropped_at + _DROP_SECONDS - self._loop.time()
        if wait <= 0:
            self._drop_all(reason)
        elif self._later is None:
            self._later = self._loop.call_later(wait, self._drop_all, reason)

    def _drop_all(self, reason: str) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None
        self._dropped_at = self._loop.time()
        for member in self._members:
            member.drop(self._given_up_at, GivenUpError(f"the server was given up: {reason}"))

    async def _look_out(self) -> None:
        while not self._is_closed:
            await asyncio.sleep(self._lookup_seconds)
            if not any(member.current is not None for member in self._members):
                continue
            begun_at = self._loop.time()
            with contextlib.suppress(psycopg.Error, OSError, StreamqError):
                found = await self.connector.connect_again()
                self._compare(found, begun_at)
                found.end(GivenUpError("not needed"))


class SharedConnection:
    """Keeps one :class:`Connection` for all tasks, and gives it to one at a time.

    It connects when asked, and never by itself.

    Args:
        group: The connections of the queue.
    """

    def __init__(self, group: ConnectionGroup) -> None:
        self._group = group
        self._begun_at = -math.inf
        self._once: ConnectOnce[Connection] = ConnectOnce(
            self._connect, _disconnect, closed=partial(closed_error, BACKEND)
        )
        self._turn = asyncio.Lock()
        self._jobs: set[asyncio.Task[Any]] = set()
        self._is_closed = False

    @property
    def current(self) -> Connection | None:
        """The connection, if there is one now."""
        connection = self._once.current
        return connection if connection is not None and connection.is_open else None

    async def get(self) -> Connection:
        """Return the connection; connect if there is none.

        Raises:
            ClosedError: :meth:`aclose` has been called.
            psycopg.Error: Connecting has failed.
        """
        broken = self._once.current
        if broken is not None and not broken.is_open:
            self._once.forget(broken)
        return await self._once.get()

    async def run(self, job: Callable[[Connection], Awaitable[T]]) -> T:
        """Run statements on the connection, after those of the others.

        Cancellation: ends the wait, and a job that has not begun is not run at all. One that has
        begun goes on to its end by itself.

        Raises:
            ClosedError: :meth:`aclose` has been called.
            psycopg.Error: Connecting has failed, or a statement has.
        """
        # The caller waits for its turn itself. If jobs waited, those of callers that have given up
        # during a stall would be run after it, and would take the time of all who come later.
        await self._turn.acquire()
        task = asyncio.create_task(self._run_in_turn(job), name="streamq-postgres-job")
        self._jobs.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    async def run_here(self, job: Callable[[Connection], Awaitable[T]]) -> T:
        """Do the same in the task of the caller, which nobody cancels."""
        await self._turn.acquire()
        return await self._run_in_turn(job)

    async def _run_in_turn(self, job: Callable[[Connection], Awaitable[T]]) -> T:
        try:
            if self._is_closed:
                raise closed_error(BACKEND)
            return await job(self.current or await self.get())
        finally:
            self._turn.release()

    def drop(self, moment: float, reason: Exception) -> None:
        """Drop the connection if connecting began before a moment."""
        connection = self.current
        if connection is not None and self._begun_at < moment:
            connection.end(reason)

    def close(self) -> None:
        """End the connection: whatever runs or waits on it gets ``ClosedError``."""
        self._is_closed = True
        if self._once.current is not None:
            self._once.current.end(closed_error(BACKEND))

    async def aclose(self) -> None:
        """Close the connection for good, and wait until nothing runs on it."""
        self.close()
        await self._once.aclose()
        if self._jobs:
            await asyncio.wait(set(self._jobs))

    def abandon(self) -> None:
        """Release the connection where its event loop has ended."""
        if self._once.current is not None:
            self._once.current.abandon()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._jobs.discard(task)
        if not task.cancelled():
            task.exception()  # seen, also if nobody waits any more

    async def _connect(self) -> Connection:
        begun_at = asyncio.get_running_loop().time()
        connection = await self._group.connector.connect()
        if self._group.has_dropped_since(begun_at):
            reason = GivenUpError("another connection has lost the server meanwhile")
            connection.end(reason)
            raise reason
        self._begun_at = begun_at
        connection.watch(self._group.on_lost)
        self._group.welcome(connection, begun_at)
        return connection


async def _disconnect(connection: Connection) -> None:
    connection.end(closed_error(BACKEND))
    await connection.gone()


def differ(one: Server, other: Server) -> bool:
    """Whether two servers are not the same one, as far as they tell."""
    return one.identity != other.identity
