"""Owns the resources of the application: queues, a hub for each watched stream, connections.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any

from starlette.requests import Request

from streamq._errors import StreamNotFoundError
from streamq._events import StreamId
from streamq._settings import Settings
from streamq.access import Rights
from streamq.driver import ChunkQueue, close_all
from streamq.opening._open import retry_policy
from streamq.quotas import Quotas, load_quotas
from streamq.reading._tail import read_latest

from ._authority import Authority
from ._catch_up import CatchUp
from ._client_bounds import ClientBounds
from ._clients import Client, Clients
from ._descriptors import room_for_connections
from ._failure_log import FailureLog
from ._follower import Follower
from ._gateway_statistics import GatewayStatistics
from ._hub import OPEN_RETRY_SECONDS, Place, locate
from ._hubs import Hubs
from ._last_attempt import LastAttemptFollower
from ._many._prefix_watchers import PrefixWatchers
from ._options import GatewayOptions
from ._pacer import Gate, Pacer
from ._pages import ReadPlace
from ._places import EventPlace, NamedPlace
from ._questions import Questions
from ._queues import Queues
from ._reader_quotas import ReaderQuotas
from ._records import Records
from ._revocations import Revocations
from ._server_watch import ServerWatch, Stoppable
from ._stopping import Stopping
from ._throttled import AnyFollower, ThrottledFollower
from ._viewing import Viewing

_NO_CLIENT = Client("")


class Gateway:
    """The gateway behind an application; reach it as ``app.state.gateway``.

    The queue is opened by the application's lifespan, or on first use where the lifespan is not run
    (Starlette and FastAPI do not run that of a mounted application). In that case call
    :meth:`aclose` when the parent shuts down.

    Args:
        queue: An open queue to use for everything; it stays open. By default the configured one is
            opened twice, for live events and for all other reads, and closed with the gateway.
        settings: Tenant and limits.
        options: Bounds and deadlines of connections.
        authority: Decides what a request may do; by default one by the settings.
        quotas: What tenants and subjects may take; by default those of the settings.
    """

    def __init__(
        self,
        queue: ChunkQueue | None,
        settings: Settings,
        options: GatewayOptions,
        authority: Authority | None = None,
        quotas: Quotas | None = None,
    ) -> None:
        self.settings = settings
        self.options = options
        self._queues = Queues(queue, settings)
        self.clients = Clients(options.trusted_proxies)
        """Tells clients apart."""
        self.failures = FailureLog()
        """Logs why streams cannot be read."""
        self._connections: set[Stoppable] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._watcher: asyncio.Task[None] | None = None
        self._watch = ServerWatch()
        self._room: int | None = options.max_connections
        self._configured_quotas = load_quotas(settings) if quotas is None else quotas
        self.quotas = ReaderQuotas(self._configured_quotas)
        """Counts what tenants and subjects take."""
        self._catch_up = CatchUp(self._queues.open_for_the_past, options, Pacer(), self.quotas)
        self._hubs = Hubs(
            options, self.failures, forget_pages=self._catch_up.cache.forget, own=self.own
        )
        self._gate = Gate()
        self.authority = authority or Authority(settings)
        """Decides what a request may do."""
        self.revocations = Revocations(self._queues, settings, self.authority.needs_tokens)
        """Knows which tokens were revoked."""
        self.stopping = Stopping(settings)
        """Cancels in Temporal what produces a stream."""
        self.questions = Questions(self._queues, options, self.quotas)
        """Asks the backend about streams."""
        self.viewing = Viewing(self.questions, settings, self.brief_settings)
        """Knows what people see of streams beside their events."""
        self.prefixes = PrefixWatchers(self.questions, options, self.own)
        """Looks for the streams of prefixes."""
        self.bounds = ClientBounds(options, lambda: self.max_connections, self.quotas)
        """Counts what clients hold."""
        self.records = Records(
            self._queues, self.questions, self._catch_up, self.bounds, self.brief_settings, options
        )
        """Follows stored records for clients that decode them by themselves."""

    @property
    def max_connections(self) -> int:
        """Most open event streams."""
        if self._room is None:
            self._room = room_for_connections() * 10 // 11  # the rest is for short requests
        return self._room

    @property
    def brief_settings(self) -> Settings:
        """The settings for questions that a client waits for: retried for 2 s at most."""
        retry_seconds = min(self.settings.retry_seconds, OPEN_RETRY_SECONDS)
        return self.settings.model_copy(update={"retry_seconds": retry_seconds})

    def statistics(self) -> GatewayStatistics:
        """Return the counters; cheap, and possible at any time."""
        catch_up = self._catch_up
        return GatewayStatistics(
            streams=len(self._hubs),
            connections=len(self._connections),
            waiting=self.bounds.awaited.held,
            lingering=self._hubs.lingering,
            page_reads=catch_up.turns.taken,
            page_waits=catch_up.turns.waiting,
            memory_bytes=self._hubs.memory_bytes + catch_up.cache.size_bytes,
        )

    async def rights_of_token(
        self, request: Request, *, takes_ticket: bool = False, reads: bool = False
    ) -> Rights:
        """Return what a request may do by its token, unless that was revoked.

        What it may do with streams is up to the application, too: :func:`rights_of_request`.

        Args:
            request: The request.
            takes_ticket: Whether a ticket is accepted for it.
            reads: Whether it only reads, whatever its method is.

        Raises:
            MissingTokenError: There is no token, and nothing is permitted without one.
            InvalidTokenError: The token is refused.
            IssuerUnavailableError: It cannot be verified at the moment.
            RevocationsUnknownError: It may have been revoked.
        """
        rights = await self.authority.rights(request, takes_ticket=takes_ticket, reads=reads)
        await self.revocations.check(rights)
        return rights

    def client_of(self, scope: Any, rights: Rights) -> Client:
        """Return the client of a request, by its ASGI scope and its rights."""
        return Client(self.clients.name(scope), rights.tenant, rights.subject)

    async def enter(self, scope: Any) -> None:
        """Wait until a request may begin: one after the other, in rotation over clients.

        Raises:
            GatewayLimitError: It may not within 50 s.
        """
        await self._gate.enter(Client(self.clients.name(scope)))

    async def open(self) -> ChunkQueue:
        """Return the queue of live events; open the configured one if necessary.

        Raises:
            ClosedError: The gateway is shutting down.
            StreamqError: As for :func:`streamq.open_queue`; the next call tries again.
        """
        return await self._queues.open()

    async def check_backend(self) -> str:
        """Return the name of the backend if it answers; see :meth:`Queues.check`."""
        return await self._queues.check(self.settings.tenant)

    async def aclose(self) -> None:
        """End every connection, stop reading, and close the queues that were opened here.

        Idempotent. Producers are not affected. The gateway can be used again afterwards. This waits
        for an :meth:`open` in progress, which raises ``ClosedError``.

        Cancellation: everything is released all the same, soon after this call at the latest.
        """
        self._queues.refuse()
        await close_all(
            self._stop_watcher,
            self.prefixes.aclose,
            self._hubs.aclose,
            self._end_tasks,
            self.revocations.aclose,
            self.records.aclose,
            self._catch_up.aclose,
            self.authority.aclose,
            self._queues.aclose,
            self._allow_opening,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Open the queue on entry, and close everything on exit."""
        await self.open()
        self.revocations.start()
        try:
            yield
        finally:
            await self.aclose()

    def twin(self) -> Gateway:
        """Return another gateway with the same queue, if one was given, settings and options.

        It reads no file, since that may not be usable now.
        """
        return Gateway(
            self._queues.given,
            self.settings,
            self.options,
            self.authority.twin(),
            self._configured_quotas,
        )

    def renew(self) -> None:
        """Begin anew for another event loop: what belonged to the last one has ended with it."""
        self._queues.abandon()
        authority = self.authority.twin()
        given, settings, options = self._queues.given, self.settings, self.options
        Gateway.__init__(self, given, settings, options, authority, self._configured_quotas)

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
        self,
        stream: StreamId,
        after: EventPlace | NamedPlace,
        *,
        may_be_missing: bool = False,
        client: Client = _NO_CLIENT,
        last_attempt: bool = False,
        until: int | None = None,
        is_one_of_many: bool = False,
    ) -> AnyFollower | None:
        """Add a client to a stream; pass the result to :meth:`leave` at the end.

        A stream that does not exist costs no hub, unless the client waits for it.

        Args:
            stream: The stream.
            after: The last event that the client has; ``"last"`` for the latest value, ``"tail"``
                for what comes after now.
            may_be_missing: Accept a stream that does not exist yet.
            client: The client, from :meth:`client_of`.
            last_attempt: Whether attempts that a reset has voided are left out.
            until: Only resets up to this event count for that; by default all that are known.
            is_one_of_many: Whether its connection has other streams, and was counted by itself.

        Returns:
            A follower, or ``None`` if the client already has the end of the stream.

        Raises:
            ClientLimitError: The client follows too many streams.
            GatewayLimitError: All clients together do.
            QuotaError: Its tenant, or the holder of its token, does.
            StreamNotFoundError: The stream does not exist.
            CursorError: The client names an event that the stream does not have, or one of an
                earlier stream of this name.
            CapabilityError: A place was requested that the backend cannot locate.
            StreamqError: The backend cannot be queried.

        Cancellation: leaves nothing behind.
        """
        held = ExitStack()
        bound = self.bounds.shared if is_one_of_many else self.bounds.connections
        held.callback(bound.take(client).release)
        waiting = latest = None
        # A named place is replaced below, since no hub knows it by itself.
        begin = after if isinstance(after, EventPlace) else EventPlace(0)
        try:
            held.callback(self.quotas.follow(client, stream).release)
            queue = await self.open()
            hub = self._hubs.usable(stream)
            if hub is None or not hub.knows(after):
                place, latest = await self._look(stream, client, after)
                hub = self._hubs.usable(stream)
                if hub is not None:
                    hub.note(place)
                    if hub.is_outdated:
                        self._hubs.forget(hub)
                        hub = None
                hub = hub or self._hubs.new(queue, stream, place, self.settings)
                if not isinstance(after, EventPlace):
                    begin = hub.named_place(latest)
            # Without an await from here on, so that the hub cannot be closed meanwhile.
            if not hub.has_appeared:
                if begin.offset or not may_be_missing:
                    raise StreamNotFoundError(f"there is no stream {stream}", stream=str(stream))
                waiting = self.bounds.awaited.take(client)
            if isinstance(after, EventPlace):  # a named place may be newer than the hub knows
                hub.check_life(after)
                hub.check_offset(after.offset)
        except BaseException:
            held.close()
            if waiting is not None:
                waiting.release()
            raise
        if hub.has_end(begin.offset):
            held.close()
            return None
        self._hubs.join(hub)
        parts = (hub, begin, latest, self._catch_up, client, held, waiting)
        is_choosy = last_attempt and isinstance(after, EventPlace)  # elsewhere nothing is void
        follower = LastAttemptFollower(*parts, until=until) if is_choosy else Follower(*parts)
        throttles = self.quotas.throttles(client)
        return ThrottledFollower(follower, throttles) if throttles else follower

    def end_readers(self, stream: StreamId) -> None:
        """Report to all who follow a stream here that it was deleted."""
        self._hubs.cut(stream)
        self.records.cut(stream)

    def leave(self, follower: AnyFollower) -> None:
        """Remove a client; after the last one, the hub is closed after ``linger_seconds``."""
        follower.close()
        self._hubs.leave(follower.hub)

    def own(self, task: asyncio.Task[Any]) -> None:
        """Wait for a task when the gateway is closed."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _look(
        self, stream: StreamId, client: Client, after: EventPlace | NamedPlace
    ) -> tuple[Place, ReadPlace | None]:
        """Return where a stream stands, and the place before its latest value if that was asked.

        The place is that of a hub that others have made meanwhile, if possible.
        """
        async with self.questions.ask(client) as queue:
            hub = self._hubs.usable(stream)
            if hub is not None and hub.knows(after):
                return hub.place, None
            retry = retry_policy(self.brief_settings, queue, stream)
            place = await locate(queue, stream, retry)
            if after != "last" or not place.exists or place.offset is None:
                return place, None
            cursor = await read_latest(queue, stream, retry)
            return place, ReadPlace(cursor.progress.offset, cursor.encode(stream))

    async def _stop_watcher(self) -> None:
        self.stop_connections()
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.wait({self._watcher})

    async def _end_tasks(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _allow_opening(self) -> None:
        self._queues.allow()

    async def _watch_server(self) -> None:
        """Stop all connections as soon as the server begins to exit; runs while there are any."""
        await self._watch.wait(lambda: bool(self._connections), self.stop_connections)
