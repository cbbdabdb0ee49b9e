"""Reads what the server stores: records of a stream, and facts about streams.

Design: docs/design/redis.md.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import islice

import redis.exceptions as rx

from streamq.driver import Stored, StreamId, StreamInfo, encode_position, within_bounds

from ._errors import is_wrong_type
from ._naming import KeySpace
from .requests._commands import (
    Command,
    Id,
    Reply,
    checked,
    entries_after,
    facts,
    newest_entries,
    parse_entries,
    scan,
    scan_index,
)
from .requests._connection import Connection
from .requests._connection_group import SharedConnection

_REMEMBERED_SIZES = 4_096


class PageSizes:
    """Decides how many records a request asks for, by the size of those that came last.

    It decides how many requests a read takes and how much of their answers is thrown away, and
    nothing else.
    """

    _FIRST_PAGE = 2

    def __init__(self) -> None:
        self._record_bytes: OrderedDict[bytes, int] = OrderedDict()

    def pages(self, key: bytes, max_records: int, max_bytes: int) -> Pages:
        """Return what decides for one read how many records each page has."""
        return Pages(self, key, max_records, max_bytes)

    def count(self, key: bytes, room_bytes: int) -> int:
        """Return how many records of a stream are about so many bytes."""
        typical = self._record_bytes.get(key)
        return self._FIRST_PAGE if typical is None else room_bytes // typical

    def remember(self, key: bytes, record_bytes: int) -> None:
        """Remember the size of a stream's records."""
        self._record_bytes[key] = 1 + record_bytes  # never 0, for divisions
        self._record_bytes.move_to_end(key)
        if len(self._record_bytes) > _REMEMBERED_SIZES:
            self._record_bytes.popitem(last=False)


class Pages:
    """Decides for one read how many records each page has.

    The first page has as many as may be returned, by the size of the stream's last records, or a
    few while that size is unknown. Each further page is twice as large at most.

    Args:
        sizes: Sizes of records.
        key: Which stream.
        max_records: How many records may be returned.
        max_bytes: How many bytes may be returned.
    """

    _LARGEST = 512

    def __init__(self, sizes: PageSizes, key: bytes, max_records: int, max_bytes: int) -> None:
        self._sizes = sizes
        self._key = key
        self._max_records = max_records
        self._max_bytes = max_bytes
        self._before = self._LARGEST

    def count(self, found: Sequence[Stored]) -> int:
        """Return the count of the next page; 0 if one of the limits of the read is reached.

        Args:
            found: What the pages before have brought.
        """
        records = self._max_records - len(found)
        room = self._max_bytes - sum(len(each.data) for each in found)
        if found and (records <= 0 or room <= 0):
            return 0
        most = min(self._sizes.count(self._key, room), 2 * self._before, self._LARGEST, records)
        self._before = max(1, most)  # only the server knows whether the next record fits
        return self._before

    async def measured(self, page: Awaitable[list[Stored]]) -> list[Stored]:
        """Wait for a page, and remember the size of its records.

        If it does not come in time, the next read begins with half as many: the network was too
        slow for so many.
        """
        try:
            records = await page
        except rx.TimeoutError:
            self._sizes.remember(self._key, self._max_bytes // max(1, self._before // 2))
            raise
        if records:
            size = sum(len(each.data) for each in records)
            self._sizes.remember(self._key, size // len(records))
        return records


class RecordReader:
    """Reads the records of streams, in pages whose size follows that of the records.

    Args:
        connection: The connection for requests.
    """

    def __init__(self, connection: SharedConnection) -> None:
        self._connection = connection
        self._sizes = PageSizes()

    async def read(self, key: bytes, start: Id, max_records: int, max_bytes: int) -> list[Stored]:
        """Return the records after an id, within the bounds of a read.

        Raises:
            redis.exceptions.RedisError: The server has refused, or cannot be reached. Nothing of
                what came before is returned: streamq would take it for all that is stored.
            OSError: The server cannot be reached.
        """
        pages = self._sizes.pages(key, max_records, max_bytes)
        found: list[Stored] = []
        position = encode_position(start)
        while count := pages.count(found):
            page = await pages.measured(self._page(key, position, count))
            found += page
            if len(page) < count:
                break
            position = page[-1].position
        return within_bounds(found, max_records, max_bytes)

    async def _page(self, key: bytes, position: str, count: int) -> list[Stored]:
        connection = await self._connection.get()
        (reply,) = await connection.call(entries_after(key, position, count))
        return parse_entries(checked(reply))


@dataclass(slots=True)
class KeyScan:
    """The state of one walk.

    Attributes:
        tenant: Whose streams.
        prefix: How their names begin.
        cursor: Where the server goes on.
        connection: Whose server the cursor belongs to.
        seen: Streams that are left out from now on.
        is_complete: Whether there is no further page.
    """

    tenant: str
    prefix: str
    cursor: bytes = b"0"
    connection: Connection | None = None
    seen: set[StreamId] = field(default_factory=set)
    is_complete: bool = False

    def goes_on_at(self, connection: Connection) -> Connection:
        """Begin anew if this is another server: it orders its keys in another way."""
        if self.connection is not connection:
            self.connection, self.cursor = connection, b"0"
        return connection

    def is_new(self, stream: StreamId) -> bool:
        """Return whether a stream is seen for the first time, and remember it."""
        if stream in self.seen:
            return False
        self.seen.add(stream)
        return True


class StreamLister:
    """Describes and lists streams.

    Args:
        connection: The connection for requests.
        keys: Names of keys.
        ttl: Time to live of a stream after its last append.
        lag: Longest time by which an append may have set it longer.
    """

    def __init__(
        self, connection: SharedConnection, keys: KeySpace, ttl: timedelta, lag: timedelta
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._ttl = ttl
        self._lag = lag

    async def describe(self, stream: StreamId, last: int) -> StreamInfo | None:
        """Return what is known of a stream, with its newest records; ``None`` if there is none."""
        key = self._keys.key(stream)
        commands = [*facts(key), newest_entries(key, last)]
        *replies, newest = await (await self._connection.get()).call(*commands)
        info = self._info(stream, replies)
        return info and replace(info, last=tuple(parse_entries(checked(newest))))

    async def page(self, walk: KeyScan) -> list[StreamInfo]:
        """Return the streams of the next page."""
        connection = walk.goes_on_at(await self._connection.get())
        (reply,) = await connection.call(self._next_page(walk))
        page = checked(reply)
        assert isinstance(page, list)
        walk.cursor, keys = page  # type: ignore[assignment]
        walk.is_complete = walk.cursor == b"0"
        assert isinstance(keys, list)
        streams = [self._keys.stream(key) for key in self._keys_of(walk, keys)]
        found = [each for each in streams if each is not None and walk.is_new(each)]
        if not found:
            return []
        replies = iter(
            await connection.call(
                *(fact for stream in found for fact in facts(self._keys.key(stream)))
            )
        )
        infos = [self._listed(stream, [*islice(replies, 3)]) for stream in found]
        return [info for info in infos if info is not None]

    def _next_page(self, walk: KeyScan) -> Command:
        if not self._keys.is_indexed:
            return scan(walk.cursor, self._keys.pattern(walk.tenant, walk.prefix))
        pattern = self._keys.members(walk.prefix)
        return scan_index(self._keys.index(walk.tenant), walk.cursor, pattern)

    def _keys_of(self, walk: KeyScan, page: list[Reply]) -> list[bytes]:
        """Return the keys of a page, which has names and their times if there is an index."""
        found: list[bytes] = page  # type: ignore[assignment]
        if self._keys.is_indexed:
            return [self._keys.key_of_member(walk.tenant, name) for name in found[::2]]
        return found

    def _info(self, stream: StreamId, replies: Sequence[Reply]) -> StreamInfo | None:
        """Build the description from the replies to ``facts``; ``None`` if there is no stream."""
        records, left, size = replies
        if not checked(records):
            return None
        return StreamInfo(
            stream,
            records=records,  # type: ignore[arg-type]
            size_bytes=_visible(size),
            expires_in=self._promised(checked(left)),  # type: ignore[arg-type]
        )

    def _listed(self, stream: StreamId, replies: Sequence[Reply]) -> StreamInfo | None:
        """Do the same for a listing: an index may have the name of a key that is no stream."""
        return None if is_wrong_type(replies[0]) else self._info(stream, replies)

    def _promised(self, left_ms: int) -> timedelta | None:
        """Return how long a stream lives at least; ``None`` if it does not expire.

        The extra time that an append has added is not promised.
        """
        if left_ms < 0:
            return None
        left = timedelta(milliseconds=left_ms)
        return self._ttl if self._ttl < left <= self._ttl + self._lag else left


def _visible(size: Reply) -> int | None:
    """Return a size, if the server lets us see it."""
    return size if isinstance(size, int) else None
