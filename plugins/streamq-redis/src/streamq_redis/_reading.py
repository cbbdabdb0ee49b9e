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


class RecordReader:
    """Reads the records of streams, in pages whose size follows that of the records.

    Args:
        connection: The connection for requests.
    """

    def __init__(self, connection: SharedConnection) -> None:
        self._connection = connection
        self._record_bytes: OrderedDict[bytes, int] = OrderedDict()

    async def read(self, key: bytes, start: Id, max_records: int, max_bytes: int) -> list[Stored]:
        """Return the records after an id, within the bounds of a read.

        The first page asks for as much as may be returned, by the size of the stream's last
        records, or for a few records while that size is unknown. Each further page is twice as
        large.

        Raises:
            redis.exceptions.RedisError: The server has refused, or cannot be reached.
            OSError: The server cannot be reached.
        """
        typical = self._record_bytes.get(key)
        count = _FIRST_PAGE if typical is None else max_bytes // typical
        found: list[Stored] = []
        room = max_bytes
        while True:
            count = max(1, min(count, _LARGEST_PAGE, max_records - len(found)))
            position = found[-1].position if found else encode_position(start)
            try:
                connection = self._connection.current or await self._connection.get()
                (reply,) = await connection.call(entries_after(key, position, count))
                records = parse_entries(checked(reply))
            except (rx.RedisError, OSError) as exc:
                if isinstance(exc, rx.TimeoutError):
                    # A slow network: half as many next time.
                    self._learn(key, max_bytes // max(1, count // 2))
                if found:
                    return found
                raise
            if not records:
                return found
            typical = self._learn(key, sum(len(each.data) for each in records) // len(records))
            fitting = within_bounds(records, max_records - len(found), room)
            size = sum(len(each.data) for each in fitting)
            if size > room and found:
                return found
            found += fitting
            room -= size
            is_all = len(records) < count or len(fitting) < len(records)
            if is_all or len(found) >= max_records or room <= 0:
                return found
            # At least one: only the server knows whether the next record fits.
            count = min(2 * count, room // typical)

    def forget(self, key: bytes) -> None:
        """Forget the size of a stream's records; for a stream that was deleted."""
        self._record_bytes.pop(key, None)

    def _learn(self, key: bytes, record_bytes: int) -> int:
        """Remember the size of a stream's records; return it, never 0, for divisions."""
        self._record_bytes[key] = typical = 1 + record_bytes
        self._record_bytes.move_to_end(key)
        if len(self._record_bytes) > _REMEMBERED_SIZES:
            self._record_bytes.popitem(last=False)
        return typical


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
        if walk.connection is not connection:
            # Another server orders its keys in another way.
            walk.connection, walk.cursor = connection, b"0"
        (reply,) = await connection.call(self._next_page(walk))
        page = checked(reply)
        assert isinstance(page, list)
        cursor, keys = page
        assert isinstance(keys, list)
        if self._keys.is_indexed:
            keys = [self._keys.key_of_member(walk.tenant, name) for name in keys[::2]]  # type: ignore[arg-type]
        found: list[StreamId] = []
        for key in keys:
            stream = self._keys.stream(key)  # type: ignore[arg-type]
            if stream is not None and stream not in walk.seen:
                walk.seen.add(stream)
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

    def _info(
        self, stream: StreamId, replies: Sequence[Reply], *, is_listed: bool = False
    ) -> StreamInfo | None:
        """Build the description from the replies to ``facts``; ``None`` if there is no stream."""
        if is_listed and is_wrong_type(replies[0]):
            return None  # an index may have the name of a key that holds something else
        records, left, size = checked(replies[0]), checked(replies[1]), replies[2]
        assert isinstance(records, int)
        assert isinstance(left, int)
        if left == -2 or not records:
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
