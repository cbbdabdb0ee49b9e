"""Resolves the server's name anew for each connection, once for all that connect at the same time.

A resolution cannot be cancelled: it keeps a thread of the event loop's pool until the system gives
up. If every try began one of its own, a slow name server would take all threads of the process, and
no try would ever see the end of a resolution that takes longer than a try may.

Design: docs/design/redis.md.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, TypeAlias

from redis.asyncio.connection import Connection, SSLConnection

from streamq.driver import SingleFlight

_Addresses: TypeAlias = "list[tuple[int, int, int, str, tuple[Any, ...]]]"


class Resolver:
    """Resolves the name of one server.

    Args:
        host: The name, or an address.
        port: The port.
        closed: Returns the error to raise once closed.
    """

    def __init__(self, host: str, port: int, *, closed: Callable[[], Exception]) -> None:
        self._host = host
        self._port = port
        self._resolving = SingleFlight(self._resolve, closed=closed)

    async def connect(self, seconds: float) -> socket.socket:
        """Return a socket that is connected to one of the name's addresses.

        Args:
            seconds: Time for all addresses together, so that a silent one leaves some to the next.

        Raises:
            OSError: The name cannot be resolved, or no address can be connected to.
        """
        found = await self._resolving.result()
        error: OSError = OSError("the name has no address")
        for family, kind, protocol, _, address in found:
            connecting = socket.socket(family, kind, protocol)
            try:
                connecting.setblocking(False)
                async with asyncio.timeout(seconds / len(found)):
                    await asyncio.get_running_loop().sock_connect(connecting, address)
                return connecting
            except OSError as exc:  # TimeoutError is one
                connecting.close()
                error = exc
            except BaseException:
                connecting.close()
                raise
        raise error

    def close(self) -> None:
        """Give up; every waiting caller gets the error of ``closed``."""
        self._resolving.close()

    async def gone(self) -> None:
        """Wait until nothing is under way after :meth:`close`."""
        await self._resolving.gone()

    async def _resolve(self) -> _Addresses:
        try:  # an address needs no thread
            return socket.getaddrinfo(  # type: ignore[return-value]
                self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
            )
        except socket.gaierror:
            loop = asyncio.get_running_loop()
            return await loop.getaddrinfo(  # type: ignore[return-value]
                self._host, self._port, type=socket.SOCK_STREAM
            )


class ResolvedConnection(Connection):
    """A connection of redis-py over a socket that is connected already.

    Attributes:
        connected: The socket; redis-py owns it from ``connect`` on.
    """

    connected: socket.socket

    def _connection_arguments(self) -> dict[str, Any]:
        return {"sock": self.connected}


class ResolvedSSLConnection(SSLConnection):
    """The same with TLS: the certificate has to be that of the name.

    Attributes:
        connected: The socket; redis-py owns it from ``connect`` on.
    """

    connected: socket.socket

    def _connection_arguments(self) -> dict[str, Any]:
        return {
            "sock": self.connected,
            "ssl": self.ssl_context.get(),
            "server_hostname": self.host,
        }
