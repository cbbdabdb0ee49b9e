"""Connects, logs in, and asks what the server and the connection can do.

Design: docs/design/redis.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import redis.exceptions as rx
from redis.asyncio.connection import AbstractConnection

from streamq import ConfigurationError
from streamq_redis._errors import BACKEND, is_harmless, known, speaks_of_server
from streamq_redis._settings import RedisSettings, address_of, make_pool

from ._commands import Reply, greet, is_replica, parse_greeting, unblock
from ._connection import Connection, Server
from ._login import Login
from ._resolver import ResolvedConnection, ResolvedSSLConnection, Resolver

_CLIENT_NAME = "streamq"
_RUN = b"run_id:"


class Connector:
    """Makes the connections of one queue.

    Args:
        settings: Where the server is, who logs in, and how long that may take.

    Attributes:
        address: Where the server is, without credentials, for messages.
    """

    def __init__(self, settings: RedisSettings) -> None:
        self._login = Login(settings.credential_source())
        self._pool = make_pool(settings.url)
        self._timeout_seconds = settings.connect_timeout_seconds
        self._patience = settings.operation_timeout_seconds
        self.address = address_of(self._pool)
        self._open: set[Connection] = set()
        where = self._pool.connection_kwargs
        self._resolver = Resolver(where.get("host", "localhost"), where.get("port", 6379))

    async def connect(
        self, prepare: Callable[[Connection], Awaitable[None]] | None = None
    ) -> Connection:
        """Make a connection, log in, and prepare it; if that fails, it is closed.

        Args:
            prepare: Makes the first requests on the connection.

        Raises:
            redis.exceptions.RedisError: The server cannot be reached in time, or refuses us.
            OSError: The server cannot be reached.
            ConfigurationError: The server is too old, or the source of credentials unusable.
        """
        connection = await self._login.attempt(self._connect)
        if prepare is not None:
            try:
                await prepare(connection)
            except BaseException:
                connection.drop(rx.ConnectionError("not needed"))
                await connection.gone()
                raise
        return connection

    async def connect_again(self) -> Connection:
        """Make a connection with the latest credentials, without asking for new ones.

        Raises:
            redis.exceptions.RedisError: The server cannot be reached in time, or refuses us.
            OSError: The server cannot be reached.
            ConfigurationError: The server is too old.
        """
        return await self._connect(is_first=False)

    async def gone(self) -> None:
        """Wait until all connections are closed; cancelling only stops the wait.

        End the connections before.
        """
        for connection in tuple(self._open):
            await connection.gone()

    async def _connect(self, *, is_first: bool = True) -> Connection:
        transport: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        try:
            async with asyncio.timeout(self._timeout_seconds):
                login = await self._login.ask() if is_first else self._login.latest()
                transport.credential_provider = login
                if isinstance(transport, ResolvedConnection | ResolvedSSLConnection):
                    transport.connected = await self._resolver.connect(self._timeout_seconds)
                await transport.connect()  # type: ignore[no-untyped-call]
                server = await _meet(transport)
        except BaseException as exc:
            await transport.disconnect(nowait=True)
            if isinstance(exc, TimeoutError):
                seconds = f"{self._timeout_seconds:g}"
                raise rx.ConnectionError(f"no answer within {seconds} s") from None
            if isinstance(exc, Exception) and (ours := known(exc)) is not exc:
                raise ours from exc
            raise
        connection = Connection(transport, server, self._patience)
        self._open.add(connection)
        connection.when_gone(self._open.discard)
        return connection


async def _meet(transport: AbstractConnection) -> Server:
    # Unlike CLIENT and INFO, HELLO is allowed to every user, whatever the ACL says.
    await transport.send_command(*greet(), "SETNAME", _CLIENT_NAME)
    greeting = await _answer(transport)
    if isinstance(greeting, rx.ResponseError):
        if "unknown command" in str(greeting):
            raise ConfigurationError(
                "the server does not know HELLO; Redis 6.2 or newer, or Valkey, is needed",
                backend=BACKEND,
            ) from greeting
        raise greeting
    packed = transport.pack_commands([("PING",), ("INFO", "server")])
    await transport.send_packed_command(packed, check_health=False)
    ping = await _answer(transport)  # refused by a server that is loading its data
    if isinstance(ping, rx.ResponseError) and not is_harmless(ping):
        raise ping
    facts = await _answer(transport)
    if isinstance(facts, rx.ResponseError) and speaks_of_server(facts):
        raise facts
    found = parse_greeting(greeting)
    number, version, mode = found.get(b"id"), found.get(b"version"), found.get(b"mode")
    if not isinstance(number, int) or not isinstance(version, bytes):
        raise rx.InvalidResponse("the answer to HELLO has no id or no version")
    lines = facts.splitlines() if isinstance(facts, bytes) else []
    program = found.get(b"server")
    return Server(
        number,
        program.decode(errors="replace").capitalize() if isinstance(program, bytes) else "Redis",
        version.decode(),
        mode=mode.decode() if isinstance(mode, bytes) else "standalone",
        is_replica=is_replica(found),
        identity=next((line[len(_RUN) :].decode() for line in lines if line.startswith(_RUN)), ""),
    )


async def _answer(transport: AbstractConnection) -> Reply:
    try:
        return await transport.read_response(  # type: ignore[no-any-return]
            disable_decoding=True, disconnect_on_error=False
        )
    except rx.ResponseError as exc:
        return exc


async def check_unblock(connection: Connection) -> None:
    """Find out whether we may interrupt the blocking commands of a connection.

    The connection is not blocked now, so that the request has no other effect.
    """
    (reply,) = await connection.call(unblock(connection.server.client_id))
    connection.may_unblock = isinstance(reply, int)
