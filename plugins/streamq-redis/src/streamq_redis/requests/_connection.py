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

from streamq_redis._errors import known, speaks_of_server

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
        may_unblock: Whether blocking commands of this connection can be interrupted; set by
            ``check_unblock``.
        was_dropped: Whether it ended by :meth:`drop`.
    """

    def __init__(self, transport: AbstractConnection, server: Server, patience: float) -> None:
        self.server = server
        self.may_unblock = False
        self.was_dropped = False
        self._transport = transport
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._requests: deque[_Request] = deque()
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._has_unsent = asyncio.Event()
        self._has_room = asyncio.Event()
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

    def submit(self, commands: list[Command], done: ReplyHandler, *, extra: float = 0.0) -> None:
        """Send commands and call ``done`` with their replies.

        Commands that are submitted in one turn of the event loop are sent together.

        Args:
            commands: Sent in one piece.
            done: Called when all replies have arrived, or when the connection is lost.
            extra: Seconds that the server may take beyond the usual time, for blocking commands.
        """
        if self._lost is not None:
            done([], self._lost)
            return
        packed = self._transport.pack_commands(commands)
        deadline = self._loop.time() + self._patience + extra
        self._requests.append(_Request(len(commands), done, deadline))
        if self._watch is None:
            self._watch = self._loop.call_at(self._requests[0].deadline, self._check)
        self._unsent += packed
        self._unsent_bytes += sum(map(len, packed))
        self._has_unsent.set()

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

        self.submit([*commands], done)
        return future

    async def writable(self) -> None:
        """Wait while too much is waiting to be sent.

        Raises:
            Exception: The connection is lost.
        """
        while self._lost is None and self._unsent_bytes > _UNSENT_BYTES:
            self._has_room.clear()
            await self._has_room.wait()
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
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._send())
                tasks.create_task(self._receive())
        except* Exception as group:  # noqa: BLE001 - no caller may wait for ever
            self._lose(known(group.exceptions[0]))
        finally:
            self._lose(rx.ConnectionError("connection closed"))
            # A socket that accepts no more bytes is not waited for.
            with contextlib.suppress(rx.RedisError, OSError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._transport.disconnect()

    async def _send(self) -> None:
        while True:
            await self._has_unsent.wait()
            self._has_unsent.clear()
            packed, self._unsent, self._unsent_bytes = self._unsent, [], 0
            self._has_room.set()
            await self._transport.send_packed_command(packed, check_health=False)

    async def _receive(self) -> None:
        while True:
            reply: Reply
            try:
                reply = await self._transport.read_response(
                    disable_decoding=True, disconnect_on_error=False
                )
            except rx.ResponseError as exc:
                reply = exc
                self._judge(exc)
            except rx.AuthenticationError as exc:
                # It forgets who we are; whether it refuses us is found out by logging in again.
                raise rx.ConnectionError(f"it asks for credentials again: {exc}") from exc
            # Errors that redis-py takes for a broken connection (LOADING) do end it.
            if not self._requests:
                raise rx.InvalidResponse("an answer without a request")
            request = self._requests[0]
            request.replies.append(reply)
            if len(request.replies) == request.count:
                self._requests.popleft()
                request.done(request.replies, None)
                self._end_if_judged()

    def _judge(self, reply: rx.ResponseError) -> None:
        if speaks_of_server(reply):
            self._verdict = self._verdict or reply

    def _end_if_judged(self) -> None:
        """Give the server up, once the request that has shown what it is has its replies."""
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
        elif request is not self._overdue:
            # If our event loop was blocked, the answer has arrived and was only not read yet.
            self._overdue = request
            self._watch = self._loop.call_later(_LAST_CHANCE_SECONDS, self._check)
        else:
            self.abort(rx.TimeoutError("no answer; the connection was dropped"))

    def _lose(self, reason: Exception) -> None:
        if self._lost is not None:
            return
        self._lost = reason
        if self._watch is not None:
            self._watch.cancel()
        self._has_room.set()
        while self._requests:
            self._requests.popleft().done([], reason)
        self._report(reason)

    def _report(self, reason: Exception) -> None:
        if self._on_lost is not None and not self.was_dropped:
            self._on_lost(reason)
