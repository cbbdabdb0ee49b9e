"""Keeps a hub for each watched stream, and for some time after its last client has left.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from streamq._errors import StreamNotFoundError
from streamq._events import StreamId
from streamq._settings import Settings
from streamq.driver import ChunkQueue

from ._failure_log import FailureLog
from ._hub import Hub, Place
from ._options import GatewayOptions
from ._ring import RingBudget


class Hubs:
    """The hubs of one gateway.

    Args:
        options: How long a hub lingers, and how much it keeps in memory.
        failures: Logs why streams cannot be read.
        forget_pages: Drops the pages that were read for a hub.
        own: Has the gateway wait for a task when it is closed.
    """

    def __init__(
        self,
        options: GatewayOptions,
        failures: FailureLog,
        *,
        forget_pages: Callable[[Hub], None],
        own: Callable[[asyncio.Task[Any]], None],
    ) -> None:
        self._options = options
        self._failures = failures
        self._forget_pages = forget_pages
        self._own = own
        self._rings = RingBudget(options.rings_bytes)
        self._hubs: dict[StreamId, Hub] = {}
        self._lingering: OrderedDict[Hub, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._hubs)

    @property
    def lingering(self) -> int:
        """How many have no client any more."""
        return len(self._lingering)

    @property
    def memory_bytes(self) -> int:
        """Bytes of encoded events in memory, about."""
        return self._rings.used

    def usable(self, stream: StreamId) -> Hub | None:
        """Return the hub of a stream if there is one that has not failed."""
        hub = self._hubs.get(stream)
        return None if hub is None or hub.failure is not None else hub

    def new(self, queue: ChunkQueue, stream: StreamId, place: Place, settings: Settings) -> Hub:
        """Return a hub that reads nothing yet; :meth:`join` keeps it."""
        return Hub(queue, stream, place, settings, self._options, self._failures, self._rings)

    def join(self, hub: Hub) -> None:
        """Add a client to a hub."""
        self._hubs[hub.stream] = hub
        hub.clients += 1
        if hub.linger is not None:
            hub.linger.cancel()
            hub.linger = None
            del self._lingering[hub]

    def leave(self, hub: Hub) -> None:
        """Remove a client; after the last one, the hub is closed after ``linger_seconds``."""
        hub.clients -= 1
        if hub.clients:
            return
        if hub.failure is not None or not hub.is_started:
            self.forget(hub)  # it does not read, and no other client will join it
            return
        if not hub.has_appeared:  # nothing is kept for what is not there
            self._retire(hub)
            return
        loop = asyncio.get_running_loop()
        hub.linger = loop.call_later(self._options.linger_seconds, self._retire, hub)
        self._lingering[hub] = None
        if len(self._lingering) > self._options.max_lingering:
            oldest = next(iter(self._lingering))
            assert oldest.linger is not None
            oldest.linger.cancel()
            self._retire(oldest)

    def forget(self, hub: Hub) -> None:
        """Let no other client join a hub."""
        self._lingering.pop(hub, None)
        self._forget_pages(hub)
        self._rings.remove(hub.ring)
        if self._hubs.get(hub.stream) is hub:
            del self._hubs[hub.stream]

    def cut(self, stream: StreamId) -> None:
        """Report to all clients of a stream that it was deleted."""
        hub = self._hubs.get(stream)
        if hub is not None and hub.has_appeared:
            gone = f"stream {stream} is gone: it was deleted"
            hub.cut(StreamNotFoundError(gone, stream=str(stream)))
            self._forget_pages(hub)

    async def aclose(self) -> None:
        """Close all hubs. Their clients have been stopped before. Idempotent."""
        hubs, self._hubs = list(self._hubs.values()), {}
        self._lingering.clear()
        for hub in hubs:
            if hub.linger is not None:
                hub.linger.cancel()
            self._forget_pages(hub)
        await asyncio.gather(*(hub.aclose() for hub in hubs), return_exceptions=True)

    def _retire(self, hub: Hub) -> None:
        self.forget(hub)
        self._own(asyncio.create_task(hub.aclose()))
