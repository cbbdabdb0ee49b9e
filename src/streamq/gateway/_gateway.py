"""Owns the resources of the application: the queue, a hub for each watched stream, connections."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from streamq._errors import ClosedError, CursorError, StreamNotFoundError
from streamq._events import StreamId
from streamq._settings import Settings
from streamq.driver import ChunkQueue, close_all
from streamq.opening._open import open_queue

from ._failure_log import FailureLog
from ._follower import Follower
from ._hub import Hub
from ._options import GatewayOptions
from ._places import EventPlace, NamedPlace

_SERVER_POLL_SECONDS = 0.25
_CLOSING = "the gateway is shutting down"


class Stoppable(Protocol):
    """An open connection that can be stopped."""

    def stop(self) -> None:
        """End the connection now, in an orderly way."""


@dataclass(frozen=True, slots=True)
class GatewayStatistics:
    """Counters of the gateway.

    Attributes:
        streams: Streams that are being read, or were until a few seconds ago.
        connections: Open SSE connections.
    """

    streams: int
    connections: int


class Gateway:
    """The gateway behind an application; reach it as ``app.state.gateway``.

    The queue is opened by the application's lifespan, or on first use where the lifespan is not run
    (Starlette and FastAPI do not run that of a mounted application). In that case call
    :meth:`aclose` when the parent shuts down.

    Args:
        queue: An open queue to use; it stays open. By default the configured one is opened, and
            closed with the gateway.
        settings: Tenant and limits.
        options: Bounds and deadlines of connections.
    """

    def __init__(
        self, queue: ChunkQueue | None, settings: Settings, options: GatewayOptions
    ) -> None:
        self.settings = settings
        self.options = options
        self._given = queue
        self._owned: ChunkQueue | None = None
        self._opening = asyncio.Lock()
        self._closing = 0
        self._hubs: dict[StreamId, Hub] = {}
        self._failures = FailureLog()
        self._connections: set[Stoppable] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._watcher: asyncio.Task[None] | None = None

    def statistics(self) -> GatewayStatistics:
        """Return the counters; cheap, and possible at any time."""
        return GatewayStatistics(len(self._hubs), len(self._connections))

    async def open(self) -> ChunkQueue:
        """Return the queue; open the configured one if necessary.

        Raises:
            ClosedError: The gateway is shutting down.
            StreamqError: As for :func:`streamq.open_queue`; the next call tries again.
        """
        self._check_open()
        if self._given is not None:
            return self._given
        async with self._opening:
            self._check_open()
            if self._owned is None:
                opened = await open_queue(self.settings)
                if self._closing:
                    await opened.aclose()
                    raise ClosedError(_CLOSING)
                self._owned = opened
            return self._owned

    async def aclose(self) -> None:
        """End every connection, stop reading, and close the queue if it was opened here.

        Idempotent. Producers are not affected. The gateway can be used again afterwards. This waits
        for an :meth:`open` in progress, which raises ``ClosedError``.

        Cancellation: everything is released all the same, soon after this call at the latest.
        """
        self._closing += 1
        await close_all(
            self._stop_watcher, self._close_hubs, self._close_queue, self._allow_opening
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Open the queue on entry, and close everything on exit."""
        await self.open()
        try:
            yield
        finally:
            await self.aclose()

    def twin(self) -> Gateway:
        """Return another gateway with the same queue, if one was given, settings and options."""
        return Gateway(self._given, self.settings, self.options)

    def renew(self) -> None:
        """Begin anew for another event loop: what belonged to the last one has ended with it."""
        if self._owned is not None:
            self._owned.abandon()
        Gateway.__init__(self, self._given, self.settings, self.options)

    def stop_connections(self) -> None:
        """End every open connection; clients reconnect and continue where they were."""
        for connection in list(self._connections):
            connection.stop()

    @asynccontextmanager
    async def connection(self, connection: Stoppable) -> AsyncIterator[None]:
        """Count a connection, and stop it when the gateway or its server stops."""
        self._connections.add(connection)
        if self._watcher is None or self._watcher.done():
            self._watcher = asyncio.create_task(self._watch_server(), name="streamq-server-watcher")
        try:
            yield
        finally:
            self._connections.discard(connection)

    async def follow(
        self, stream: StreamId, after: EventPlace | NamedPlace, *, may_be_missing: bool = False
    ) -> Follower | None:
        """Add a client to a stream; pass the result to :meth:`leave` at the end.

        Args:
            stream: The stream.
            after: The last event that the client has; ``"last"`` for the latest value, ``"tail"``
                for what comes after now.
            may_be_missing: Accept a stream that does not exist yet.

        Returns:
            A follower, or ``None`` if the client already has the end of the stream.

        Raises:
            StreamNotFoundError: The stream does not exist.
            CursorError: The client names an event that the stream does not have, or one of an
                earlier stream of this name.
            CapabilityError: A place was requested that the backend cannot locate.
            StreamqError: The backend cannot be queried.
        """
        hub = self._join(await self.open(), stream)
        try:
            place = await hub.opened()
            named = None if isinstance(after, EventPlace) else after
            beyond = after.offset if isinstance(after, EventPlace) else 0
            is_far = named is not None or beyond > max(hub.ring.offset, place.offset or 0)
            if is_far or hub.is_ended:
                place = await hub.refresh()
            if hub.is_outdated:
                self._forget(hub)
                self._leave(hub)
                hub = self._join(await self.open(), stream)
                place = await hub.opened()
            if not hub.has_appeared and (beyond or not may_be_missing):
                raise StreamNotFoundError(f"there is no stream {stream}", stream=str(stream))
            if not isinstance(after, EventPlace):
                after = await hub.resolve(after)
            hub.check_life(after)
            newest = max(hub.ring.offset, place.offset or 0)
            if (hub.is_ended or place.is_sealed) and after.offset >= newest:
                self._leave(hub)
                return None
            if named is None and place.offset is not None and after.offset > newest:
                raise CursorError(
                    f"event {after.offset} is beyond the newest event {newest} of stream {stream}; "
                    "it was deleted, or had expired, and began again: read it from the beginning",
                    stream=str(stream),
                )
        except BaseException:
            self._leave(hub)
            raise
        return Follower(hub, after)

    async def leave(self, follower: Follower) -> None:
        """Remove a client; after the last one, the hub is closed after ``linger_seconds``."""
        try:
            await follower.aclose()
        finally:
            self._leave(follower.hub)

    async def _stop_watcher(self) -> None:
        self.stop_connections()
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait({self._watcher})

    async def _close_hubs(self) -> None:
        hubs, self._hubs = list(self._hubs.values()), {}
        for hub in hubs:
            if hub.linger is not None:
                hub.linger.cancel()
        await asyncio.gather(*(hub.aclose() for hub in hubs), *self._tasks)

    async def _close_queue(self) -> None:
        async with self._opening:  # a queue that is being opened is closed before this returns
            owned, self._owned = self._owned, None
            if owned is not None:
                await owned.aclose()

    async def _allow_opening(self) -> None:
        self._closing -= 1

    def _check_open(self) -> None:
        if self._closing:
            raise ClosedError(_CLOSING)

    def _join(self, queue: ChunkQueue, stream: StreamId) -> Hub:
        hub = self._hubs.get(stream)
        if hub is None or hub.failure is not None:
            hub = self._hubs[stream] = Hub(
                queue, stream, self.settings, self.options, self._failures
            )
        hub.clients += 1
        if hub.linger is not None:
            hub.linger.cancel()
            hub.linger = None
        return hub

    def _leave(self, hub: Hub) -> None:
        hub.clients -= 1
        if hub.clients:
            return
        if hub.failure is not None:  # its reader has ended, and no other client will join it
            self._forget(hub)
        else:
            loop = asyncio.get_running_loop()
            hub.linger = loop.call_later(self.options.linger_seconds, self._retire, hub)

    def _forget(self, hub: Hub) -> None:
        if self._hubs.get(hub.stream) is hub:
            del self._hubs[hub.stream]

    def _retire(self, hub: Hub) -> None:
        self._forget(hub)
        task = asyncio.create_task(hub.aclose())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch_server(self) -> None:
        """Stop all connections as soon as uvicorn begins to exit; runs while there are any.

        uvicorn ends the lifespan only when every connection is closed, and by default waits for
        that without limit. It has no other notification for an application. Its signal handler is a
        method of the server, whose ``should_exit`` is public.
        """
        while self._connections:
            if _server_is_exiting():
                self.stop_connections()
            await asyncio.sleep(_SERVER_POLL_SECONDS)


def _server_is_exiting() -> bool:
    for number in (signal.SIGINT, signal.SIGTERM):
        server = getattr(signal.getsignal(number), "__self__", None)
        if getattr(server, "should_exit", False) is True:
            return True
    return False
