"""Reads the streams of a gateway as if it were a backend; nothing can be written.

Design: docs/design/reading-over-http.md.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

from streamq._capabilities import Capabilities
from streamq._errors import (
    CapabilityError,
    ConfigurationError,
    StreamNotFoundError,
)
from streamq._events import StreamId, user_stream
from streamq.driver import ChunkQueue, Closing, Entry, Guard, Stored, StreamInfo

from ._address import GatewayAddress
from ._answers import BACKEND, capabilities_of, info_of, malformed, records_of
from ._token import Token, TokenSource

if TYPE_CHECKING:
    from ._client import GatewayClient
    from ._feed import Feed

_PAGE_BYTES = 262_144
_PAGE_RECORDS = 1_000
_LISTED = 1_000
_CALL_SECONDS = 45.0
_MOST_WAIT_SECONDS = 300
_IDLE_SECONDS = 30.0
_MOST_IDLE = 16
_PAUSE_SECONDS = 0.2


class GatewayQueue(ChunkQueue):
    """A connection to a gateway; :func:`streamq.open_gateway` opens one.

    Reading is what it is on the gateway's backend: the same records at the same positions. The
    response of a stream stays open from one read to the next, for half a minute at most while
    nobody reads.

    Args:
        client: Sends the requests. It is closed with the queue.
        tenant: Whose streams are read where only a name is given.
        is_named: Whether the tenant is in the paths of requests, as the address named it.
        capabilities: Those of the gateway's backend.
    """

    backend = BACKEND

    def __init__(
        self,
        client: GatewayClient,
        tenant: str,
        capabilities: Capabilities,
        *,
        is_named: bool,
    ) -> None:
        self.capabilities = capabilities
        self.tenant = tenant
        """The tenant of streams that are given by their name."""
        self._client = client
        self._is_named = is_named
        self._guard = Guard(BACKEND, seconds=_CALL_SECONDS, address=client.origin)
        self._feeds: dict[StreamId, list[Feed]] = {}
        self._idle: dict[Feed, StreamId] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._closing = Closing(self._close_feeds, client.aclose)

    @property
    def address(self) -> GatewayAddress:
        """Where the gateway is."""
        return self._client.address

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        """Return stored records after a position; see :meth:`ChunkQueue.read`."""
        async with self._guard(stream, seconds=_CALL_SECONDS + max_wait):
            if max_wait <= 0:
                return await self._stored(stream, after, max_records, max_bytes)
            return await self._live(stream, after, max_records, max_bytes, max_wait)

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        """Return what is known of a stream; see :meth:`ChunkQueue.describe`."""
        async with self._guard(stream):
            answer = await self._get(stream, {"last": str(last)})
            return info_of(answer, self._client.origin, stream)

    async def newest_epoch(self, stream: StreamId) -> int:
        """Return the newest epoch, where the gateway's backend knows it without reading."""
        async with self._guard(stream):
            try:
                answer = await self._get(stream, {"last": "0"})
            except StreamNotFoundError:
                return 0
            epoch = answer.get("newest_epoch")
            if not isinstance(epoch, int):
                raise malformed(self._client.origin, "no newest epoch", stream)
            return epoch

    async def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        """Iterate over the streams of a tenant, at most as many as a gateway lists.

        Raises:
            ConfigurationError: No tenant can have this name.
            CapabilityError: After the last one, if there are more than that.
        """
        try:
            user_stream(tenant, "x")
        except ValueError as exc:
            raise ConfigurationError(f"{exc}; give the tenant first, and then the prefix") from None
        origin = self._client.origin
        async with self._guard():
            url = self._client.address.url(self._in_path(tenant), "streams")
            params = {"prefix": prefix, "limit": str(_LISTED)}
            answer = await self._client.get(url, params)
            listed = answer.get("streams")
            if not isinstance(listed, list):
                raise malformed(origin, "no list of streams")
            infos = [self._listed(each, tenant) for each in listed]
        for info in infos:
            yield info
        if answer.get("is_complete") is not True:
            raise CapabilityError(
                f"{origin} lists {_LISTED} streams at most, and there are more that begin with "
                f"{prefix!r}; give a longer prefix",
                backend=BACKEND,
            )

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        """Refuse: a gateway takes no records."""
        self._refuse("written to", stream)

    async def delete(self, stream: StreamId) -> None:
        """Refuse: this queue only reads."""
        self._refuse("deleted", stream)

    async def aclose(self) -> None:
        """End everything; see :meth:`ChunkQueue.aclose`."""
        self._guard.close()
        await self._closing.run()

    def _refuse(self, what: str, stream: StreamId) -> NoReturn:
        self._guard.check(stream)
        raise CapabilityError(
            f"stream {stream} cannot be {what} through a gateway, which is opened to read: that "
            "takes open_queue(), with the backend's settings",
            backend=BACKEND,
            stream=str(stream),
        )

    def _in_path(self, tenant: str) -> str | None:
        return tenant if self._is_named or tenant != self.tenant else None

    async def _get(self, stream: StreamId, params: dict[str, str]) -> dict[str, Any]:
        return await self._client.get(self._url(stream), params, stream)

    def _url(self, stream: StreamId) -> str:
        return self._client.address.url(self._in_path(stream.tenant), "records", stream.name)

    def _listed(self, found: object, tenant: str) -> StreamInfo:
        origin = self._client.origin
        try:
            stream = StreamId(tenant, found["name"])  # type: ignore[index]
        except (TypeError, KeyError, ValueError, AttributeError):
            raise malformed(origin, "a list with something that is no stream") from None
        assert isinstance(found, dict)
        return info_of(found, origin, stream)

    async def _stored(
        self, stream: StreamId, after: str, max_records: int, max_bytes: int
    ) -> list[Stored]:
        """Return what is stored now, as much as the limits allow, in as many pages as it takes."""
        found: list[Stored] = []
        size, position = 0, after
        while len(found) < max_records and size < max_bytes:
            params = {
                "after": position,
                "follow": "false",
                "records": str(min(max_records - len(found), _PAGE_RECORDS)),
                "bytes": str(min(max_bytes - size, _PAGE_BYTES)),
            }
            answer = await self._get(stream, params)
            page = records_of(answer.get("records"), self._client.origin, stream)
            if not page:
                break
            for stored in page:
                size += len(stored.data)
                if found and (size > max_bytes or len(found) == max_records):
                    return found
                found.append(stored)
            position = page[-1].position
        return found

    async def _live(
        self, stream: StreamId, after: str, max_records: int, max_bytes: int, max_wait: float
    ) -> list[Stored]:
        until = asyncio.get_running_loop().time() + max_wait
        while True:
            feed = self._feed(stream, after)
            try:
                found = await feed.fetch(max_records, max_bytes, until)
            finally:
                self._leave(stream, feed)
            if found or not feed.is_ended:
                return found
            if feed.error is not None:
                raise feed.error.with_traceback(None)
            # It was closed for its age, or cut off on the way: it goes on with another request.
            left = until - asyncio.get_running_loop().time()
            if left <= 0 or feed.is_gone:  # the reader asks at once what has become of it
                return found
            if feed.open_seconds < _PAUSE_SECONDS:  # else this would go round at full speed
                await asyncio.sleep(min(_PAUSE_SECONDS, left))

    def _feed(self, stream: StreamId, after: str) -> Feed:
        """Return a feed that nobody uses and that stands at the position, or another one."""
        from ._feed import Feed

        for feed in self._feeds.get(stream, []):
            if feed.position == after and not feed.is_used:
                break
        else:
            params = {"after": after, "wait": str(_MOST_WAIT_SECONDS)}
            feed = Feed(self._client, self._url(stream), params, stream, after)
            self._feeds.setdefault(stream, []).append(feed)
        feed.is_used = True
        self._idle.pop(feed, None)
        if feed.expiry is not None:
            feed.expiry.cancel()
            feed.expiry = None
        return feed

    def _leave(self, stream: StreamId, feed: Feed) -> None:
        """Keep a feed for the next read, for a while."""
        feed.is_used = False
        if self._guard.is_closed or (feed.is_ended and feed.is_empty):
            self._drop(stream, feed)
            return
        loop = asyncio.get_running_loop()
        feed.expiry = loop.call_later(_IDLE_SECONDS, self._drop, stream, feed)
        self._idle[feed] = stream
        if len(self._idle) > _MOST_IDLE:
            oldest, its_stream = next(iter(self._idle.items()))
            self._drop(its_stream, oldest)

    def _drop(self, stream: StreamId, feed: Feed) -> None:
        self._idle.pop(feed, None)
        if feed.expiry is not None:
            feed.expiry.cancel()
            feed.expiry = None
        feeds = self._feeds.get(stream, [])
        if feed in feeds:
            feeds.remove(feed)
        if not feeds:
            self._feeds.pop(stream, None)
        task = asyncio.get_running_loop().create_task(feed.aclose())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _close_feeds(self) -> None:
        for stream, feeds in list(self._feeds.items()):
            for feed in list(feeds):
                self._drop(stream, feed)
        while self._ending:
            await asyncio.wait(self._ending)


async def connect(address: GatewayAddress, token: Token | None) -> GatewayQueue:
    """Return a queue that reads from a gateway, which has answered.

    Raises:
        ConfigurationError: httpx is not installed; or a token would be sent in clear text.
        AccessDeniedError: The gateway refuses the token.
        CapabilityError: Its backend has no replay.
        StreamqError: It cannot be reached, or is no gateway.

    Cancellation: leaves nothing behind.
    """
    try:
        from ._client import GatewayClient
    except ModuleNotFoundError as exc:
        raise ConfigurationError(
            f"reading through a gateway needs the package {exc.name!r}; run: "
            "pip install 'streamq[http]'"
        ) from exc
    if token is not None:
        address.check_token_is_safe()
    async with contextlib.AsyncExitStack() as stack:
        client = GatewayClient(address, TokenSource(token, BACKEND))
        stack.push_async_callback(client.aclose)
        answer = await client.get(address.url(address.tenant, "records"), {})
        capabilities = capabilities_of(answer, client.origin)
        tenant = answer.get("tenant")
        if not isinstance(tenant, str):
            raise malformed(client.origin, "no tenant")
        if not capabilities.replay:
            raise CapabilityError(
                f"the backend of {client.origin} has no replay, so that it cannot be read through "
                "a gateway",
                backend=BACKEND,
            )
        stack.pop_all()
    return GatewayQueue(client, tenant, capabilities, is_named=address.tenant is not None)
