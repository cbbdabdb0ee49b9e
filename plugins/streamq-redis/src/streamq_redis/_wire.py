"""One connection that many tasks share: requests go out at once, replies come back in order.

redis-py connects, logs in, packs commands and parses replies. Its clients give a connection to one
task at a time, though, so that every stream that is followed would take one of its own; here any
number of requests is under way, which is what makes a handful of connections enough.

Two tasks serve a connection, one sending and one reading. Whoever waits for a reply waits for a
future of its own: cancelling that leaves the connection as it is. When either task fails, whatever
the reason, every request under way fails with it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import redis.exceptions as rx
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection

from streamq import ConfigurationError
from streamq.driver import ClosedError

from ._errors import BACKEND, known

Reply: TypeAlias = "bytes | int | rx.ResponseError | list[Reply] | None"
Command: TypeAlias = "tuple[bytes | str | int, ...]"

_UNSENT_BYTES = 1_048_576
_CLOSE_SECONDS = 1.0
_LAST_CHANCE_SECONDS = 0.05
_CLIENT_NAME = "streamq"


def closed_error() -> ClosedError:
    """Return what is raised after the queue has been closed."""
    return ClosedError("this Redis queue is closed", backend=BACKEND)


class Done(Protocol):
    """Told once what became of a request: all its replies, or why there are none."""

    def __call__(self, replies: list[Reply], error: Exception | None, /) -> None: ...


@dataclass(slots=True)
class _Request:
    count: int
    done: Done
    deadline: float
    replies: list[Reply] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Server:
    """What a server says of itself and of this connection.

    Attributes:
        client_id: The server's number for the connection.
        version: The server's version.
        is_cluster: Whether the server is a node of a cluster.
    """

    client_id: int
    version: str
    is_cluster: bool


class Wire:
    """A connected connection of redis-py, made by :func:`connect`, and the tasks that serve it.

    Attributes:
        server: What the server has said about itself.
        may_unblock: Whether blocking commands of this connection can be interrupted; asked for by
            :func:`check_unblock`.
    """

    def __init__(self, connection: AbstractConnection, server: Server, patience: float) -> None:
        self.server = server
        self.may_unblock = False
        self._connection = connection
        self._patience = patience
        self._loop = asyncio.get_running_loop()
        self._requests: deque[_Request] = deque()
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._is_asked = asyncio.Event()
        self._has_room = asyncio.Event()
        self._watch: asyncio.TimerHandle | None = None
        self._overdue: _Request | None = None
        self._lost: Exception | None = None
        self._serving = asyncio.ensure_future(self._serve())

    @property
    def is_open(self) -> bool:
        """Whether requests can still be sent."""
        return self._lost is None

    def submit(self, commands: list[Command], done: Done, *, extra: float = 0.0) -> None:
        """Send commands and have ``done`` called with their replies.

        What is submitted in one turn of the event loop goes out together.

        Args:
            commands: What to send, in one piece.
            done: Called when all replies are here, or when the connection is lost.
            extra: Seconds that the server may take beyond the usual, for blocking commands.
        """
        if self._lost is not None:
            done([], self._lost)
            return
        packed = self._connection.pack_commands(commands)
        deadline = self._loop.time() + self._patience + extra
        self._requests.append(_Request(len(commands), done, deadline))
        if self._watch is None:
            self._watch = self._loop.call_at(self._requests[0].deadline, self._check)
        self._unsent += packed
        self._unsent_bytes += sum(map(len, packed))
        self._is_asked.set()

    def call(self, *commands: Command) -> asyncio.Future[list[Reply]]:
        """Send commands; the result is the list of their replies.

        Error replies are elements of the list. Cancelling only means that nobody listens.
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
        """Wait until little enough is waiting to be sent; raises if the connection is lost."""
        while self._lost is None and self._unsent_bytes > _UNSENT_BYTES:
            self._has_room.clear()
            await self._has_room.wait()
        if self._lost is not None:
            raise self._lost

    def abort(self, reason: Exception) -> None:
        """Drop the connection; everything under way fails with ``reason``."""
        self._lose(reason)
        self._serving.cancel()

    async def gone(self) -> None:
        """Wait until the connection is closed."""
        await asyncio.wait({self._serving})

    # -- inside --------------------------------------------------------------------------------

    async def _serve(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._send())
                tasks.create_task(self._receive())
        except* Exception as group:  # noqa: BLE001 - whatever it is, nobody must wait on
            self._lose(known(group.exceptions[0]))
        finally:
            self._lose(rx.ConnectionError("connection closed"))
            # A socket that takes nothing any more is not waited for.
            with contextlib.suppress(rx.RedisError, OSError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._connection.disconnect()

    async def _send(self) -> None:
        while True:
            await self._is_asked.wait()
            self._is_asked.clear()
            packed, self._unsent, self._unsent_bytes = self._unsent, [], 0
            self._has_room.set()
            await self._connection.send_packed_command(packed, check_health=False)

    async def _receive(self) -> None:
        while True:
            reply: Reply
            try:
                reply = await self._connection.read_response(
                    disable_decoding=True, disconnect_on_error=False
                )
            except rx.ResponseError as exc:
                reply = exc
            # Errors that redis-py takes for a broken connection (NOAUTH, LOADING) do end it.
            if not self._requests:
                raise rx.InvalidResponse("an answer that was not asked for")
            request = self._requests[0]
            request.replies.append(reply)
            if len(request.replies) == request.count:
                self._requests.popleft()
                request.done(request.replies, None)

    def _check(self) -> None:
        self._watch = None
        if not self._requests:
            return
        request = self._requests[0]
        deadline = request.deadline
        if deadline > self._loop.time():
            self._watch = self._loop.call_at(deadline, self._check)
        elif request is not self._overdue:
            # If it was our event loop that stood still, the answer is here, only not yet read.
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


async def connect(pool: ConnectionPool, *, timeout_seconds: float, patience: float) -> Wire:
    """Make a connection that is logged in.

    Args:
        pool: What makes connections.
        timeout_seconds: Longest time for all of it.
        patience: Longest time for an answer later on.

    Raises:
        redis.exceptions.RedisError: Cannot be reached in time, or refused by the server's word.
        ConfigurationError: The server is too old.
    """
    connection: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
    try:
        async with asyncio.timeout(timeout_seconds):
            await connection.connect()  # type: ignore[no-untyped-call]
            server = await _greet(connection)
    except BaseException as exc:
        await connection.disconnect(nowait=True)
        if isinstance(exc, TimeoutError):
            raise rx.ConnectionError(f"no answer within {timeout_seconds:g} s") from None
        if isinstance(exc, Exception) and (ours := known(exc)) is not exc:
            raise ours from exc
        raise
    return Wire(connection, server, patience)


async def _greet(connection: AbstractConnection) -> Server:
    # Unlike CLIENT and INFO, HELLO is allowed to every user whatever the ACL.
    await connection.send_command("HELLO", 2, "SETNAME", _CLIENT_NAME)
    try:
        greeting = await connection.read_response(disable_decoding=True)
    except rx.ResponseError as exc:
        if "unknown command" in str(exc):
            raise ConfigurationError(
                "the server does not know HELLO; Redis 6.2 or newer, or Valkey, is needed",
                backend=BACKEND,
            ) from exc
        raise
    await connection.send_command("PING")  # refused by a server that is loading its data
    with contextlib.suppress(rx.NoPermissionError):
        await connection.read_response()
    if not isinstance(greeting, list):
        raise rx.InvalidResponse(f"HELLO was answered by a {type(greeting).__name__}")
    facts = dict(zip(greeting[::2], greeting[1::2], strict=False))
    number, version = facts.get(b"id"), facts.get(b"version")
    if not isinstance(number, int) or not isinstance(version, bytes):
        raise rx.InvalidResponse("the answer to HELLO has no id or no version")
    return Server(number, version.decode(), is_cluster=facts.get(b"mode") == b"cluster")


async def check_unblock(wire: Wire) -> None:
    """Find out whether we may interrupt blocking commands of a connection.

    It is not blocked now, so that asking does nothing else.
    """
    (reply,) = await wire.call(("CLIENT", "UNBLOCK", wire.server.client_id))
    wire.may_unblock = isinstance(reply, int)
