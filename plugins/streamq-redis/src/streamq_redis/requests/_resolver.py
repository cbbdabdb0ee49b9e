"""Resolves the server's name anew for each connection, once for all that connect at the same time.

No try would ever see the end of a resolution that takes longer than a try may, if every try began
one of its own.

Design: docs/design/redis.md.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, TypeAlias

from redis.asyncio.connection import Connection, SSLConnection

from streamq.driver import OneThread

_Addresses: TypeAlias = "list[tuple[int, int, int, str, tuple[Any, ...]]]"


class Resolver:
    """Resolves the name of one server.

    Args:
        host: The name, or an address.
        port: The port.
    """

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._thread = OneThread()

    async def connect(self, seconds: float) -> socket.socket:
        """Return a socket that is connected to one of the name's addresses.

        Args:
            seconds: Time for all addresses together, so that a silent one leaves some to the next.

        Raises:
            OSError: The name cannot be resolved, or no address can be connected to.
        """
        found = await self._resolve()
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

    async def _resolve(self) -> _Addresses:
        try:  # an address needs no thread
            return self._look_up(flags=socket.AI_NUMERICHOST)
        except socket.gaierror:
            return await self._thread.call(self._look_up)  # type: ignore[no-any-return]

    def _look_up(self, *, flags: int = 0) -> _Addresses:
        return socket.getaddrinfo(  # type: ignore[return-value]
            self._host, self._port, type=socket.SOCK_STREAM, flags=flags
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
