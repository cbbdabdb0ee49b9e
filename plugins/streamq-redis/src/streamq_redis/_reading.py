"""Reads what the server stores: records of a stream, and facts about streams.

Design: docs/design/redis.md.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

import redis.exceptions as rx

from streamq.driver import Stored, StreamId, StreamInfo, encode_position, within_bounds

from ._errors import is_wrong_type
from ._naming import KeySpace
from .requests._commands import (
    FACTS,
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

_FIRST_PAGE, _LARGEST_PAGE = 2, 512
_REMEMBERED_SIZES = 4_096


class PageSizes:
    """Decides how many records a request asks for, by the size of those that came last.

    It decides how many requests a read takes and how much of their answers is thrown away, and
    nothing else.
    """

    def __init__(self) -> None:
        self._record_bytes: OrderedDict[bytes, int] = OrderedDict()

    def count(self, key: bytes, room_bytes: int, room_records: int, before: int) -> int:
        """Return the count of the next page, at least 1.

        The first page asks for as much as may be returned, by the size of the stream's last
        records, or for a few records while that size is unknown. Each further page is twice as
        large at most.

        Args:
            key: Which stream.
            room_bytes: How many bytes may still be returned.
            room_records: How many records may still be returned.
            before: The count of the page before; 0 if there is none.
        """
        typical = self._record_bytes.get(key)
        count = _FIRST_PAGE if typical is None else room_bytes // typical
        if before:
            count = min(count, 2 * before)
        # At least one: only the server knows whether the next record fits.
        return max(1, min(count, _LARGEST_PAGE, room_records))

    def learn(self, key: bytes, records: Sequence[Stored]) -> None:
        """Remember the size of a stream's records."""
        self._remember(key, sum(len(each.data) for each in records) // len(records))

    def shrink(self, key: bytes, count: int, room_bytes: int) -> None:
        """Ask for half as many next time: the network was too slow for so many."""
        self._remember(key, room_bytes // max(1, count // 2))

    def forget(self, key: bytes) -> None:
        """Forget the size of a stream's records."""
        self._record_bytes.pop(key, None)

    def _remember(self, key: bytes, record_bytes: int) -> None:
        self._record_bytes[key] = 1 + record_bytes  # never 0, for divisions
        self._record_bytes.move_to_end(key)
        if len(self._record_bytes) > _REMEMBERED_SIZES:
            self._record_bytes.popitem(last=False)


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
        found: list[Stored] = []
        room, count = max_bytes, 0
        while True:
            count = self._sizes.count(key, room, max_records - len(found), count)
            position = found[-1].position if found else encode_position(start)
            connection = self._connection.current or await self._connection.get()
            try:
                (reply,) = await connection.call(entries_after(key, position, count))
            except rx.TimeoutError:
                self._sizes.shrink(key, count, room)
                raise
            records = parse_entries(checked(reply))
            if not records:
                return found
            self._sizes.learn(key, records)
            fitting = within_bounds(records, max_records - len(found), room)
            size = sum(len(each.data) for each in fitting)
            if size > room and found:
                return found
            found += fitting
            room -= size
            is_all = len(records) < count or len(fitting) < len(records)
            if is_all or len(found) >= max_records or room <= 0:
                return found

    def forget(self, key: bytes) -> None:
        """Forget what is known of a stream that was deleted."""
        self._sizes.forget(key)


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

    def goes_on_at(self, connection: Connection) -> None:
        """Begin anew if this is another server: it orders its keys in another way."""
        if self.connection is not connection:
            self.connection, self.cursor = connection, b"0"

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
        newest: list[Command] = [newest_entries(key, last)] if last > 0 else []
        connection = await self._connection.get()
        replies = await connection.call(*facts(key), *newest)
        info = self._info(stream, replies)
        if newest and info is not None:
            info = replace(info, last=tuple(parse_entries(checked(replies[FACTS]))))
        return info

    async def page(self, walk: KeyScan) -> list[StreamInfo]:
        """Return the streams of the next page."""
        connection = await self._connection.get()
        walk.goes_on_at(connection)
        (reply,) = await connection.call(self._next_page(walk))
        page = checked(reply)
        assert isinstance(page, list)
        cursor, keys = page
        assert isinstance(keys, list)
        found: list[StreamId] = []
        for key in self._keys_of(walk, keys):
            stream = self._keys.stream(key)
            if stream is not None and walk.is_new(stream):
                found.append(stream)
        walk.cursor = cursor  # type: ignore[assignment]
        walk.is_complete = cursor == b"0"
        if not found:
            return []
        replies = await connection.call(
            *(fact for stream in found for fact in facts(self._keys.key(stream)))
        )
        infos = [
            self._info(stream, replies[FACTS * at : FACTS * (at + 1)], is_listed=True)
            for at, stream in enumerate(found)
        ]
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

    def _info(
        self, stream: StreamId, replies: Sequence[Reply], *, is_listed: bool = False
    ) -> StreamInfo | None:
        """Build the description from the replies to ``facts``; ``None`` if there is no stream."""
        if is_listed and is_wrong_type(replies[0]):
            return None  # an index may have the name of a key that holds something else
        records, left, size = checked(replies[0]), checked(replies[1]), replies[2]
        assert isinstance(records, int)
        assert isinstance(left, int)
        if not records:
            return None
        expires_in = None
        if left >= 0:
            expires_in = timedelta(milliseconds=left)
            # The extra time that an append has added is not promised.
            if self._ttl < expires_in <= self._ttl + self._lag:
                expires_in = self._ttl
        return StreamInfo(
            stream,
            records=records,
            size_bytes=size if isinstance(size, int) else None,
            expires_in=expires_in,
        )
