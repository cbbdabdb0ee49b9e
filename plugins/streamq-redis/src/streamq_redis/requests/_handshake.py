"""Connects, logs in, and asks what the server and the connection can do."""

from __future__ import annotations

import asyncio
import contextlib

import redis.exceptions as rx
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection

from streamq import ConfigurationError
from streamq_redis._errors import BACKEND, known

from ._commands import unblock
from ._connection import Connection, Server

_CLIENT_NAME = "streamq"


async def connect(pool: ConnectionPool, *, timeout_seconds: float, patience: float) -> Connection:
    """Make a connection and log in.

    Args:
        pool: Makes connections of redis-py.
        timeout_seconds: Longest time to connect and log in.
        patience: Longest time for each later answer, in seconds.

    Raises:
        redis.exceptions.RedisError: The server cannot be reached in time, or refuses us.
        ConfigurationError: The server is too old.
    """
    transport: AbstractConnection = pool.make_connection()  # type: ignore[no-untyped-call]
    try:
        async with asyncio.timeout(timeout_seconds):
            await transport.connect()  # type: ignore[no-untyped-call]
            server = await _greet(transport)
    except BaseException as exc:
        await transport.disconnect(nowait=True)
        if isinstance(exc, TimeoutError):
            raise rx.ConnectionError(f"no answer within {timeout_seconds:g} s") from None
        if isinstance(exc, Exception) and (ours := known(exc)) is not exc:
            raise ours from exc
        raise
    return Connection(transport, server, patience)


async def _greet(transport: AbstractConnection) -> Server:
    # Unlike CLIENT and INFO, HELLO is allowed to every user, whatever the ACL says.
    await transport.send_command("HELLO", 2, "SETNAME", _CLIENT_NAME)
    try:
        greeting = await transport.read_response(disable_decoding=True)
    except rx.ResponseError as exc:
        if "unknown command" in str(exc):
            raise ConfigurationError(
                "the server does not know HELLO; Redis 6.2 or newer, or Valkey, is needed",
                backend=BACKEND,
            ) from exc
        raise
    await transport.send_command("PING")  # refused by a server that is loading its data
    with contextlib.suppress(rx.NoPermissionError):
        await transport.read_response()
    if not isinstance(greeting, list):
        raise rx.InvalidResponse(f"HELLO was answered by a {type(greeting).__name__}")
    facts = dict(zip(greeting[::2], greeting[1::2], strict=False))
    number, version = facts.get(b"id"), facts.get(b"version")
    if not isinstance(number, int) or not isinstance(version, bytes):
        raise rx.InvalidResponse("the answer to HELLO has no id or no version")
    return Server(number, version.decode(), is_cluster=facts.get(b"mode") == b"cluster")


async def check_unblock(connection: Connection) -> None:
    """Find out whether we may interrupt the blocking commands of a connection.

    The connection is not blocked now, so that the request has no other effect.
    """
    (reply,) = await connection.call(unblock(connection.server.client_id))
    connection.may_unblock = isinstance(reply, int)
