"""A connection that many tasks share: requests are sent at once, replies come back in order.

redis-py connects, logs in, packs commands and parses replies. redis-py's own
clients are not used: they lend a connection to one task at a time, so every stream that is followed
would need a connection. Here any number of requests is under way on one connection.

Two tasks serve a connection: one sends, one reads. A caller waits for a future of its own, and
cancelling the caller leaves the connection as it is. When either task fails, for any reason, every
request under way fails with it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import redis.exceptions as rx
from redis.asyncio.connection import AbstractConnection

from streamq_redis._errors import ending, speaks_of_server

from ._commands import Command, Reply

_UNSENT_BYTES = 1_048_576
_CLOSE_SECONDS = 1.0
_LAST_CHANCE_SECONDS = 0.05


class ReplyHandler(Protocol):
    """Called once with the result of a request: all its replies, or an error."""

    def __call__(self, replies: list[Reply], error: Exception | None, /) -> None: ...


@dataclass(slots=True)
class _Request:
    count: int
    done: ReplyHandler
    deadline: float
    replies: list[Reply] = field(default_factory=list)


class _Unsent:
    """What waits to be sent, and the writers that wait until it is less."""

    def __init__(self) -> None:
        self._packed: list[bytes] = []
        self._bytes = 0
        self._is_there = asyncio.Event()
        self._has_room = asyncio.Event()
        self._is_ended = False

    def put(self, packed: list[bytes]) -> None:
        """Add what is to be sent."""
        self._packed += packed
        self._bytes += sum(map(len, packed))
        self._is_there.set()

    async def take(self) -> list[bytes]:
        """Take everything, as soon as there is something."""
        await self._is_there.wait()
        self._is_there.clear()
        packed, self._packed, self._bytes = self._packed, [], 0
        self._has_room.set()
        return packed

    async def room(self) -> None:
        """Wait while it is too much."""
        while self._bytes > _UNSENT_BYTES and not self._is_ended:
            self._has_room.clear()
            await self._has_room.wait()

    def end(self) -> None:
        """Let everybody who waits for room go on: nothing is sent any more."""
        self._is_ended = True
        self._has_room.set()


@dataclass(frozen=True, slots=True)
class Server:
    """Facts that a server reports about itself and about this connection.

    Attributes:
        client_id: The server's number for the connection.
        program: ``Redis``, ``Valkey``, or as it calls itself.
        version: The server's version.
        mode: ``standalone``, ``cluster`` or ``sentinel``.
        is_replica: Whether the server was a replica when the connection was made.
        identity: Number of this run of the server; empty if the server does not let us see it.
    """

    client_id: int
    program: str
    version: str
    mode: str
    is_replica: bool
    identity: str

    def differs_from(self, other: Server) -> bool:
        """Whether both are known to be different servers, or different runs of one."""
        return bool(self.identity and other.identity) and self.identity != other.identity


class Connection:
    """A connected connection of redis-py, and the two tasks that serve it.

    Args:
        transport: Connected and logged in.
        server: Facts about the server.
        patience: Longest time for an answer, in seconds.

    Attributes:
        server: Facts about the server.
        patience: Longest time for an answer, in seconds.
        may_unblock: Whether blocking commands of this connection can be interrupted; set by
            ``check_unblock``.
        was_dropped: Whether it ended by :meth:`drop`.
    """

    def __init__(self, transport: AbstractConnection, server: Server, patience: float) -> None:
        self.server = server
        self.patience = patience
        self.may_unblock: bool
        self.was_dropped = False
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._requests: deque[_Request] = deque()
        self._unsent = _Unsent()
        self._watch: asyncio.TimerHandle | None = None
        self._overdue: _Request | None = None
        self._lost: Exception | None = None
        self._verdict: rx.ResponseError | None = None
        self._on_lost: Callable[[Exception], None] | None = None
        self._serving = asyncio.ensure_future(self._serve())

    @property
    def is_open(self) -> bool:
        """Whether requests can still be sent."""
        return self._lost is None

    def submit(self, commands: list[Command], done: ReplyHandler, patience: float) -> None:
        """Send commands and call ``done`` with their replies.

        Commands that are submitted in one turn of the event loop are sent together.

        Args:
            commands: Sent in one piece.
            done: Called when all replies have arrived, or when the connection is lost.
            patience: Longest time for the answer, in seconds.
        """
        if self._lost is not None:
            done([], self._lost)
            return
        packed = self._transport.pack_commands(commands)
        deadline = self._loop.time() + patience
        self._requests.append(_Request(len(commands), done, deadline))
        if self._watch is None:
            self._watch = self._loop.call_at(self._requests[0].deadline, self._check)
        self._unsent.put(packed)

    def call(self, *commands: Command) -> asyncio.Future[list[Reply]]:
        """Send commands; the result is the list of their replies.

        Error replies are elements of the list. Cancelling the future only drops the replies.
        """
        future: asyncio.Future[list[Reply]] = self._loop.create_future()

        def done(replies: list[Reply], error: Exception | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(replies)
            else:
                future.set_exception(error)

        self.submit([*commands], done, self.patience)
        return future

    async def writable(self) -> None:
        """Wait while too much is waiting to be sent.

        Raises:
            Exception: The connection is lost.
        """
        await self._unsent.room()
        if self._lost is not None:
            raise self._lost

    def watch(self, on_lost: Callable[[Exception], None]) -> None:
        """Call a function when the connection is lost, unless it ends by :meth:`drop`."""
        self._on_lost = on_lost
        if self._lost is not None and not self.was_dropped:
            on_lost(self._lost)

    def abort(self, reason: Exception) -> None:
        """Treat the connection as lost; every request under way fails with ``reason``."""
        self._lose(reason)
        # Later, since a task that is cancelled before it has begun never runs its ``finally``.
        self._loop.call_soon(self._serving.cancel)

    def drop(self, reason: Exception) -> None:
        """Close the connection although nothing is known against it.

        Every request under way fails with ``reason``.
        """
        self.was_dropped = self.was_dropped or self._lost is None
        self.abort(reason)

    def when_gone(self, callback: Callable[[Connection], object]) -> None:
        """Call a function with this connection once it is closed."""
        self._serving.add_done_callback(lambda _: callback(self))

    async def gone(self) -> None:
        """Wait until the connection is closed."""
        await asyncio.wait({self._serving})

    # -- inside --------------------------------------------------------------------------------

    async def _serve(self) -> None:
        reason: Exception = rx.ConnectionError("connection closed")
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._send())
                tasks.create_task(self._receive())
        except* Exception as group:  # noqa: BLE001 - no caller may wait for ever
            reason = ending(group)
        finally:
            self._lose(reason)
            await self._disconnect()

    async def _disconnect(self) -> None:
        self._unsent.end()
        # A socket that accepts no more bytes is not waited for.
        with contextlib.suppress(rx.RedisError, OSError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._transport.disconnect()

    async def _send(self) -> None:
        while True:
            await self._transport.send_packed_command(await self._unsent.take())

    async def _receive(self) -> None:
        while True:
            reply: Reply
            try:
                reply = await self._transport.read_response(disable_decoding=True)
            except rx.ResponseError as exc:
                reply = self._judged(exc)
            # Errors that redis-py takes for a broken connection (LOADING) do end it.
            request = self._requests[0]
            request.replies.append(reply)
            if len(request.replies) == request.count:
                self._requests.popleft()
                self._answer(request)

    def _judged(self, reply: rx.ResponseError) -> rx.ResponseError:
        """Return an error reply, and remember the first one that shows what the server is."""
        if speaks_of_server(reply):
            self._verdict = self._verdict or reply
        return reply

    def _answer(self, request: _Request) -> None:
        """Answer a request; give the server up once the one that shows what it is has its reply."""
        request.done(request.replies, None)
        if self._verdict is not None:
            self._lose(self._verdict)  # before any caller can try again
            raise self._verdict

    def _check(self) -> None:
        self._watch = None
        if not self._requests:
            return
        request = self._requests[0]
        deadline = request.deadline
        if deadline > self._loop.time():
            self._watch = self._loop.call_at(deadline, self._check)
        else:
            self._end_unless_first(request)

    def _end_unless_first(self, request: _Request) -> None:
        """End the connection, unless this request is found overdue for the first time.

        If our event loop was blocked, the answer has arrived and was only not read yet.
        """
        if request is self._overdue:
            self.abort(rx.TimeoutError("no answer; the connection was dropped"))
        else:
            self._overdue = request
            self._watch = self._loop.call_later(_LAST_CHANCE_SECONDS, self._check)

    def _lose(self, reason: Exception) -> None:
        if self._lost is not None:
            return
        self._lost = reason
        while self._requests:
            self._requests.popleft().done([], reason)
        self._report(reason)

    def _report(self, reason: Exception) -> None:
        if self._on_lost is not None and not self.was_dropped:
            self._on_lost(reason)
