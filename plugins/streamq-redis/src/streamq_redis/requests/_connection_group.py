"""Keeps the connections of one queue on the same server, and gives that server up for all of them.

A name may move to another server while the old one keeps its connections: as a replica that refuses
to write, as a node that the network has cut off, or as a primary that nobody else uses any more.
What one connection learns ends all of them, so that the next call resolves the name again:

* a reply that speaks of the server and not of the command, such as READONLY;
* the loss of a connection, also by a reply that did not come in time;
* a connection to a server that is not the one of the other connections;
* the lookout, which connects now and then and compares. Only that notices an old server that
  answers as if nothing had happened.

Design: docs/design/redis.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeAlias

import redis.exceptions as rx

from streamq import StreamqError
from streamq.driver import SingleFlight, closed_error
from streamq_redis._errors import BACKEND, GivenUpError

from ._connection import Connection

Connect: TypeAlias = Callable[[], Coroutine[Any, Any, Connection]]
"""Makes a connection."""

_DROP_SECONDS = 0.5
"""Shortest interval between two times that all connections are dropped.

Many writers whose tries are refused must not keep readers of the same queue from connecting.
"""


class ConnectionGroup:
    """The connections of one queue.

    Args:
        connect: Makes a connection for the lookout.
        lookup_seconds: Interval of the lookout.
    """

    def __init__(self, connect: Connect, lookup_seconds: float) -> None:
        self._connect = connect
        self._lookup_seconds = lookup_seconds
        self._members: list[SharedConnection] = []
        self._given_up_at = -math.inf
        self._dropped_at = -math.inf
        self._later: asyncio.TimerHandle | None = None
        self._lookout: asyncio.Task[None] | None = None
        self._is_closed = False
        self._loop = asyncio.get_running_loop()

    def member(self, connect: Connect) -> SharedConnection:
        """Add a connection.

        Args:
            connect: Makes it.
        """
        member = SharedConnection(self, connect)
        self._members.append(member)
        return member

    def has_dropped_since(self, moment: float) -> bool:
        """Whether connections that were begun at a moment have been dropped since."""
        return self._dropped_at >= self._given_up_at > moment

    def compare(self, new: Connection, begun_at: float) -> None:
        """Give up the server of the other connections if the name leads to another primary now.

        A name that leads to any of several replicas is none that has moved.

        Args:
            new: A connection that was just made.
            begun_at: When connecting began.
        """
        if new.server.is_replica:
            return
        for member in self._members:
            known = member.current
            if known is not None and known is not new and known.server.differs_from(new.server):
                self._give_up(GivenUpError("its name leads to another server now"), begun_at)
                return

    def on_lost(self, reason: Exception) -> None:
        """Drop all connections that were begun before now, at once or soon.

        Args:
            reason: What one of them has learnt.
        """
        self._give_up(reason, self._loop.time())

    def on_connected(self) -> None:
        """Begin to look out, with the first connection."""
        if self._lookout is None and not self._is_closed:
            self._lookout = asyncio.create_task(self._look_out(), name="streamq-redis-lookout")

    def close(self) -> None:
        """Close all connections for good; every waiting caller gets ``ClosedError``."""
        self._end_lookout()
        for member in self._members:
            member.close()

    async def gone(self) -> None:
        """Wait until none is being made after :meth:`close`; cancelling only stops the wait."""
        await self._lookout_gone()
        for member in self._members:
            await member.gone()

    def _give_up(self, reason: Exception, moment: float) -> None:
        if self._is_closed:
            return
        self._given_up_at = max(self._given_up_at, moment)
        wait = self._dropped_at + _DROP_SECONDS - self._loop.time()
        if wait <= 0:
            self._drop_all(reason)
        elif self._later is None:
            self._later = self._loop.call_later(wait, self._drop_all, reason)

    def _drop_all(self, reason: Exception) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None
        self._dropped_at = self._loop.time()
        for member in self._members:
            member.drop(self._given_up_at, reason)

    def _end_lookout(self) -> None:
        self._is_closed = True
        if self._later is not None:
            self._later.cancel()
        if self._lookout is not None:
            self._lookout.cancel()

    async def _lookout_gone(self) -> None:
        if self._lookout is not None:
            await asyncio.wait({self._lookout})

    async def _look_out(self) -> None:
        while not self._is_closed:  # its cancellation may have become a ``ClosedError``
            await asyncio.sleep(self._lookup_seconds)
            connections = [member.current for member in self._members]
            if not any(each is not None and each.server.identity for each in connections):
                continue
            begun_at = self._loop.time()
            with contextlib.suppress(rx.RedisError, OSError, StreamqError):
                found = await self._connect()
                self.compare(found, begun_at)
                found.drop(rx.ConnectionError("not needed"))


class SharedConnection:
    """Keeps one :class:`Connection` for all tasks; connects when asked, and never by itself.

    Args:
        group: The connections of the queue.
        connect: Makes a connection.
    """

    def __init__(self, group: ConnectionGroup, connect: Connect) -> None:
        self._group = group
        self._connect = connect
        self._connection: Connection | None = None
        self._begun_at = -math.inf
        self._connecting = SingleFlight(self._replace, closed=partial(closed_error, BACKEND))

    @property
    def current(self) -> Connection | None:
        """The connection, if there is one now."""
        connection = self._connection
        return connection if connection is not None and connection.is_open else None

    @property
    def latest(self) -> Connection | None:
        """The connection that was made last, which may be lost."""
        return self._connection

    async def get(self) -> Connection:
        """Return the connection; connect if there is none.

        Raises:
            ClosedError: :meth:`close` has been called.
            redis.exceptions.RedisError: Connecting has failed.
            OSError: Connecting has failed.
        """
        return self.current or await self._connecting.result()

    async def writable(self) -> Connection:
        """Return the connection once not too much is waiting to be sent.

        Raises:
            ClosedError: :meth:`close` has been called.
            redis.exceptions.RedisError: Connecting has failed, or the connection is lost.
            OSError: Connecting has failed.
        """
        connection = await self.get()
        await connection.writable()
        return connection

    def drop(self, moment: float, reason: Exception) -> None:
        """Drop the connection if connecting began before a moment."""
        connection = self.current
        if connection is not None and self._begun_at < moment:
            connection.drop(reason)

    def close(self) -> None:
        """Close the connection for good; every waiting caller gets ``ClosedError``."""
        self._connecting.close()
        if self.current is not None:
            self.current.drop(closed_error(BACKEND))

    async def gone(self) -> None:
        """Wait until it is not being made after :meth:`close`; cancelling only stops the wait."""
        await self._connecting.gone()

    async def _replace(self) -> Connection:
        begun_at = asyncio.get_running_loop().time()
        connection = await self._connect()
        if self._group.has_dropped_since(begun_at):
            connection.drop(GivenUpError("another connection has lost it"))
            raise GivenUpError("another connection has lost it meanwhile")
        self._begun_at = begun_at
        self._connection = connection
        connection.watch(self._group.on_lost)
        self._group.on_connected()
        self._group.compare(connection, begun_at)
        return connection
