"""Accepts connections within a bound, and survives a lack of file descriptors.

asyncio's own server accepts without limit. When no descriptor is left, it logs a traceback for each
try and tries again for ever, and nothing says so to clients.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import asyncio
import errno
import json
import math
import socket
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from ._log_limit import gateway_logger
from ._pacer import Pace

_logger = gateway_logger()

_NO_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE_SECONDS = 0.2
_MAX_REFUSALS = 32
_REFUSAL_SECONDS = 1.0

_ACCEPT_SECONDS = 0.0005
"""Approximate cost of a connection until its request begins."""

_BURST = 16


class AcceptedConnection(Protocol):
    """A connection of an HTTP server, which tells its listener when it has nothing to do."""

    def abort(self) -> None:
        """Close it at once."""


class Listener:
    """Accepts connections from a socket.

    When all connections are taken, the one that has waited for a request for longest is closed in
    favour of a new one. If all have a request, the new one gets 503 with ``Retry-After``.

    Args:
        listening: The socket; it stays open.
        connect: Returns the asyncio protocol of a new connection, which calls :meth:`is_waiting`,
            :meth:`is_busy` and :meth:`is_closed`.
        max_connections: Bound.
        retry_seconds: What a refused client should wait.
    """

    def __init__(
        self,
        listening: socket.socket,
        connect: Callable[[Listener], Any],
        max_connections: int,
        retry_seconds: float,
    ) -> None:
        self.max_connections = max_connections
        self._socket = listening
        self._connect = connect
        self._open: set[AcceptedConnection] = set()
        self._waiting: OrderedDict[AcceptedConnection, None] = OrderedDict()
        self._refusals: set[_Refusal] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._refused = _refusal(retry_seconds)

    @property
    def connections(self) -> int:
        """Number of open connections."""
        return len(self._open)

    async def run(self) -> None:
        """Accept until cancelled; connections stay open."""
        loop = asyncio.get_running_loop()
        pace = Pace(2 * _ACCEPT_SECONDS, _BURST)
        try:
            while True:
                if self._tasks and len(self._open) >= self.max_connections:
                    # Connections that are being started cannot give way yet.
                    await asyncio.wait(set(self._tasks))
                try:
                    accepted, _ = await loop.sock_accept(self._socket)
                except OSError as exc:
                    await self._recover(exc)
                    continue
                self._take(accepted)
                wait = pace.begin()  # a flood must not keep the event loop for itself
                if wait:
                    await asyncio.sleep(wait)
        finally:
            for refusal in list(self._refusals):
                refusal.abort()
            for task in self._tasks:
                task.cancel()

    def is_waiting(self, connection: AcceptedConnection) -> None:
        """Note that a connection waits for its next request."""
        self._waiting[connection] = None
        self._waiting.move_to_end(connection)

    def is_busy(self, connection: AcceptedConnection) -> None:
        """Note that a connection has a request."""
        self._waiting.pop(connection, None)

    def is_closed(self, connection: AcceptedConnection) -> None:
        """Note that a connection is closed. Idempotent."""
        self._open.discard(connection)
        self._waiting.pop(connection, None)

    def _take(self, accepted: socket.socket) -> None:
        accepted.setblocking(False)
        if len(self._open) >= self.max_connections and not self._close_waiting():
            self._refuse(accepted)
            return
        connection = self._connect(self)
        self._open.add(connection)
        self._start(accepted, connection, partial(self.is_closed, connection))

    def _refuse(self, accepted: socket.socket) -> None:
        _logger.warning(
            "refused a connection: %d are open, the most that there is room for",
            len(self._open),
        )
        if len(self._refusals) >= _MAX_REFUSALS:
            accepted.close()
            return
        refusal = _Refusal(self._refused, self._refusals.discard)
        self._refusals.add(refusal)
        self._start(accepted, refusal, partial(self._refusals.discard, refusal))

    def _start(self, accepted: socket.socket, protocol: Any, forget: Callable[[], Any]) -> None:
        async def start() -> None:
            try:
                await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, accepted)
            except OSError:
                accepted.close()
                forget()
            except BaseException:
                accepted.close()
                raise

        task = asyncio.create_task(start())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _close_waiting(self) -> bool:
        """Close the connection that has waited longest for a request; return whether one did."""
        if not self._waiting:
            return False
        oldest = next(iter(self._waiting))
        self.is_closed(oldest)
        oldest.abort()
        return True

    async def _recover(self, exc: OSError) -> None:
        if exc.errno == errno.EBADF:
            raise exc
        if exc.errno in _NO_RESOURCES:
            _logger.warning(
                "cannot accept connections: %s (%d are open); raise the limit of file descriptors "
                "(ulimit -n)",
                exc.strerror,
                len(self._open),
            )
            self._close_waiting()
            await asyncio.sleep(_PAUSE_SECONDS)
        else:  # the client has gone already
            await asyncio.sleep(0)


class _Refusal(asyncio.Protocol):
    """Sends 503, then reads until the client closes: a reset could destroy the answer."""

    def __init__(self, answer: bytes, forget: Callable[[_Refusal], None]) -> None:
        self._answer = answer
        self._forget = forget
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._answer)
        transport.write_eof()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_REFUSAL_SECONDS, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._forget(self)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _refusal(retry_seconds: float) -> bytes:
    body = json.dumps(
        {"error": "gateway_limit", "message": "the gateway has no room for more connections"}
    )
    return (
        "HTTP/1.1 503 Service Unavailable\r\n"
        f"Retry-After: {math.ceil(retry_seconds)}\r\n"
        "Content-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\n"
        "Connection: close\r\n\r\n"
        f"{body}"
    ).encode("ascii")
