"""A TCP proxy in front of a server on this host, which resets, stalls and refuses connections.

Design: docs/design/testing.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import math
import socket
import struct
import time
from types import TracebackType
from typing import Self

_PIECE_BYTES = 65_536
_BACKLOG = 1_024
_IDLE_CHECK_SECONDS = 0.05
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER with 0 s: closing sends RST instead of FIN


class Direction(enum.Enum):
    """The direction in which bytes pass a :class:`FaultProxy`."""

    TO_SERVER = "to server"
    TO_CLIENT = "to client"


class FaultProxy:
    """Carries TCP connections to a server, and breaks them on demand.

    Use it as ``async with FaultProxy(host, port) as proxy`` and let clients connect to
    :attr:`address`. Every fault can be switched on and off at any time and applies to open and to
    later connections; the methods that do so return at once. Everything else passes unchanged and
    in order, including the end of either direction.

    Each connection buffers at most about 256 KiB in either direction. When the buffer is full, the
    proxy stops reading from the sender, so that a slow or held receiver slows the sender as it
    would without the proxy.

    If the server cannot be reached, or resets, the client's connection is accepted and then reset.
    Use one proxy in one event loop, on POSIX.

    Args:
        host: Host of the server.
        port: Its port.
        listen_port: Port to listen on, on loopback; 0 takes a free one.
        half_closes: Whether the proxy passes on the end of what a client sends, and leaves the
            other direction open. ``False`` ends both directions; this suits servers that would
            keep the connection for minutes (HTTP).

    Attributes:
        port: The port in use; reserved until the end, even while connections are refused.
        delay_seconds: Delay of each piece (64 KiB at most) in either direction. May be set at any
            time; pieces keep their order.

    Entering raises:
        OSError: The port to listen on is taken.
    """

    def __init__(
        self, host: str, port: int, *, listen_port: int = 0, half_closes: bool = True
    ) -> None:
        self.port = listen_port
        self.delay_seconds = 0.0
        self._idle_seconds = math.inf
        self._limits_idleness = asyncio.Event()
        self._server = host, port
        self._half_closes = half_closes
        self._flowing = {direction: asyncio.Event() for direction in Direction}
        self._allowance: int | None = None
        self._connections: dict[asyncio.Task[None], _Connection] = {}
        self._guard: socket.socket | None = None
        self._listener: socket.socket | None = None
        self.release()

    @property
    def address(self) -> str:
        """Host and port that clients connect to."""
        return f"127.0.0.1:{self.port}"

    @property
    def idle_seconds(self) -> float:
        """How long a connection may carry nothing before it is reset; by default for ever.

        As of a proxy in front of a server. May be set at any time.
        """
        return self._idle_seconds

    @idle_seconds.setter
    def idle_seconds(self, seconds: float) -> None:
        self._idle_seconds = seconds
        if math.isfinite(seconds):
            self._limits_idleness.set()
        else:
            self._limits_idleness.clear()

    @property
    def connections(self) -> int:
        """Number of open connections."""
        return len(self._connections)

    def cut(self) -> int:
        """Reset every open connection at both ends; bytes in transit are lost.

        Returns:
            The number of connections.
        """
        present = list(self._connections.items())
        for task, connection in present:
            connection.reset()
            task.cancel()
        return len(present)

    def cut_after(self, n_bytes: int) -> None:
        """Reset the connection that carries the ``n_bytes``-th byte from now, after that byte.

        Bytes of both directions and of all connections count. Happens once; another call or
        :meth:`heal` replaces this one. Usually cuts a message in two.

        Raises:
            ValueError: ``n_bytes`` is not positive.
        """
        if n_bytes <= 0:
            raise ValueError(f"n_bytes is {n_bytes}; cut() resets at once")
        self._allowance = n_bytes

    def refuse(self) -> None:
        """Refuse new connections, as when no server is running; open ones stay."""
        listener, self._listener = self._listener, None
        if listener is not None:
            asyncio.get_running_loop().remove_reader(listener)
            listener.close()

    def accept(self) -> None:
        """Accept new connections again, on the same port."""
        if self._guard is not None and self._listener is None:
            self._listener = self._bind()
            self._listener.listen(_BACKLOG)
            asyncio.get_running_loop().add_reader(self._listener, self._on_connection)

    def hold(self, direction: Direction | None = None) -> None:
        """Pass nothing on: connections are accepted and stay open, and no bytes pass.

        With a direction, the other one still works: the server gets requests whose answers do not
        arrive, or the client gets answers while its requests do not arrive. The end of a connection
        is not passed on either, as when a cable is pulled.

        Args:
            direction: The direction to hold; by default both.
        """
        for held in Direction if direction is None else (direction,):
            self._flowing[held].clear()

    def release(self, direction: Direction | None = None) -> None:
        """Pass on the bytes that were held, and those that follow.

        Args:
            direction: The direction to release; by default both.
        """
        for released in Direction if direction is None else (direction,):
            self._flowing[released].set()

    def redirect(self, host: str, port: int) -> None:
        """Lead later connections to another server; open ones stay where they are.

        As when a name that clients connect to moves to another host.
        """
        self._server = host, port

    def half_close(self, direction: Direction) -> int:
        """End one direction of every open connection; the other one continues.

        The receiver sees the end of the data. Data that the sender still sends is discarded.

        Returns:
            The number of connections.
        """
        present = list(self._connections.values())
        for connection in present:
            connection.half_close(direction)
        return len(present)

    def heal(self) -> None:
        """End every lasting fault: delay, hold, refusal, idle limit, a cut that is yet to happen.

        Connections that a fault has ended stay closed.
        """
        self.delay_seconds = 0.0
        self.idle_seconds = math.inf
        self._allowance = None
        self.release()
        self.accept()

    async def aclose(self) -> None:
        """Reset every connection and stop listening. Idempotent."""
        self.refuse()
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.close()
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def __aenter__(self) -> Self:
        # Bound, but never listening: reserves the port while connections are refused.
        self._guard = self._bind()
        self.port = self._guard.getsockname()[1]
        try:
            self.accept()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    def _bind(self) -> socket.socket:
        bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            bound.setblocking(False)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            bound.bind(("127.0.0.1", self.port))
        except BaseException:
            bound.close()
            raise
        return bound

    def _on_connection(self) -> None:
        assert self._listener is not None
        try:
            accepted, _ = self._listener.accept()
        except OSError:
            return  # the client has disconnected
        accepted.setblocking(False)
        connection = _Connection(accepted)
        task = asyncio.create_task(self._carry(connection), name=f"fault-proxy {self.port}")
        self._connections[task] = connection
        task.add_done_callback(self._connections.pop)

    async def _carry(self, connection: _Connection) -> None:
        """Pass bytes on in both directions until both have ended, or one end fails."""
        try:
            await connection.open(*self._server)
            async with asyncio.TaskGroup() as pumps:
                carrying = [
                    pumps.create_task(self._pump(connection, direction)) for direction in Direction
                ]
                idle = pumps.create_task(self._limit_idleness(connection))
                await asyncio.wait(carrying)
                idle.cancel()
            await connection.close()
        except* OSError:
            pass  # the other end gets a reset as well
        finally:
            connection.reset()
            await connection.close()

    async def _pump(self, connection: _Connection, direction: Direction) -> None:
        source, sink = connection.ends(direction)
        flowing = self._flowing[direction]
        while data := await source.read(_PIECE_BYTES):
            if self.delay_seconds > 0:
                await asyncio.sleep(self.delay_seconds)
            await _until_set(flowing)
            cuts = self._allowance is not None and len(data) >= self._allowance
            if self._allowance is not None:
                data = data[: self._allowance]
                self._allowance = None if cuts else self._allowance - len(data)
            connection.carried_at = time.monotonic()
            if not connection.is_half_closed(direction):
                sink.write(data)
                await sink.drain()
            if cuts:
                raise ConnectionResetError("cut by the proxy")
        await _until_set(flowing)
        if direction is Direction.TO_SERVER and not self._half_closes:
            raise ConnectionResetError("the client has gone")
        connection.half_close(direction)

    async def _limit_idleness(self, connection: _Connection) -> None:
        while True:
            await self._limits_idleness.wait()
            left = connection.carried_at + self._idle_seconds - time.monotonic()
            if left <= 0:
                raise ConnectionResetError("idle for too long")
            await asyncio.sleep(min(left, _IDLE_CHECK_SECONDS))


class _Connection:
    """The two ends of one connection."""

    def __init__(self, accepted: socket.socket) -> None:
        self.carried_at = time.monotonic()
        self._accepted: socket.socket | None = accepted
        self._ends: dict[Direction, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}
        self._half_closed: set[Direction] = set()

    async def open(self, host: str, port: int) -> None:
        """Connect to the server.

        Raises:
            OSError: The server cannot be reached.
        """
        accepted, limit = self._accepted, _PIECE_BYTES
        self._ends[Direction.TO_CLIENT] = await asyncio.open_connection(sock=accepted, limit=limit)
        self._accepted = None
        self._ends[Direction.TO_SERVER] = await asyncio.open_connection(host, port, limit=limit)
        for _, writer in self._ends.values():
            writer.transport.set_write_buffer_limits(high=_PIECE_BYTES)

    def ends(self, direction: Direction) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Return the reader and the writer of one direction."""
        (other,) = set(Direction) - {direction}
        return self._ends[other][0], self._ends[direction][1]

    def is_half_closed(self, direction: Direction) -> bool:
        """Whether this direction has ended."""
        return direction in self._half_closed

    def half_close(self, direction: Direction) -> None:
        """End one direction: its receiver sees the end of the data."""
        self._half_closed.add(direction)
        if direction in self._ends:
            writer = self._ends[direction][1]
            with contextlib.suppress(OSError):  # no longer connected
                if not writer.is_closing():
                    writer.write_eof()

    def reset(self) -> None:
        """End both directions at once with a reset at both ends; no effect on closed ones."""
        if self._accepted is not None:
            self._accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        for _, writer in self._ends.values():
            with contextlib.suppress(OSError):  # it is closed
                end = writer.get_extra_info("socket")
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    async def close(self) -> None:
        """Release both ends after they have sent their buffers."""
        accepted, self._accepted = self._accepted, None
        if accepted is not None:
            accepted.close()
        for _, writer in self._ends.values():
            writer.close()
        for _, writer in self._ends.values():
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def _until_set(event: asyncio.Event) -> None:
    while not event.is_set():  # another task may have cleared it before this one runs
        await event.wait()
