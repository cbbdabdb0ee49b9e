"""The queue: streamq's contract on top of the appender, the pump and three connections."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import redis.exceptions as rx

from streamq.driver import (
    BEFORE_ALL,
    Capabilities,
    ChunkQueue,
    Entry,
    QueueOptions,
    Stored,
    StreamId,
    StreamInfo,
    StreamNotFoundError,
    decode_position,
    encode_position,
)

from ._appender import Appender
from ._errors import BACKEND, redis_errors
from ._keys import KeySpace
from ._link import Link
from ._pump import Pump
from ._settings import RedisSettings, address_of, make_pool
from ._taps import Id, fit, parse_entries
from ._wire import Command, Reply, Server, Wire, check_unblock, closed_error, connect

_FIRST_PAGE, _LARGEST_PAGE = 2, 512
_REMEMBERED_SIZES = 4_096
_SCAN_COUNT = 1_000


class RedisQueue(ChunkQueue):
    """Streams on one Redis or Valkey server.

    Three connections at most, made when they are first needed: one to write, one to read and ask,
    one that blocks for all streams being followed.
    """

    backend = BACKEND

    def __init__(
        self, options: QueueOptions, settings: RedisSettings, capabilities: Capabilities
    ) -> None:
        self.capabilities = capabilities
        self._settings = settings
        self._pool = make_pool(settings.url)
        self._address = address_of(self._pool)
        self._ttl = options.ttl
        self._keys = KeySpace(settings.key_prefix)
        self._writing = Link(self._connect)
        self._asking = Link(self._connect)
        self._blocking = Link(self._connect_blocking)
        self._appender = Appender(self._writing, options.ttl)
        self._pump = Pump(
            self._blocking,
            self._asking,
            tail_bytes=settings.tail_bytes,
            block_seconds=settings.block_seconds,
        )
        self._record_bytes: OrderedDict[bytes, int] = OrderedDict()
        self._is_closed = False
        self._loop = asyncio.get_running_loop()

    async def start(self) -> Server:
        """Connect once, and learn from the server what this queue can promise."""
        with redis_errors(self._address):
            wire = await self._asking.wire()
            facts, policy = await wire.call(
                ("INFO", "persistence"), ("CONFIG", "GET", "appendfsync")
            )
        has_log = isinstance(facts, bytes) and b"aof_enabled:1" in facts
        # With "everysec" a record may be acknowledged before it has left the server's memory.
        is_synced = isinstance(policy, list) and b"always" in policy
        self.capabilities = dataclasses.replace(self.capabilities, durable=has_log and is_synced)
        return wire.server

    # -- the contract: docstrings are inherited ------------------------------------------------

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        self._check_open()
        with redis_errors(self._address, stream):
            await self._appender.append(stream, self._keys.key(stream), entries, ttl)

    async def read(
        self,
        stream: StreamId,
        after: str,
        *,
        max_records: int,
        max_bytes: int,
        max_wait: float,
    ) -> Sequence[Stored]:
        self._check_open()
        start = decode_position(after, backend=BACKEND, stream=stream)
        key = self._keys.key(stream)
        until = self._loop.time() + max_wait
        # Without a wait, and from the beginning, only the server knows: a tap may lag behind it, or
        # remember a stream that another process has deleted.
        tap = self._pump.tap(key) if max_wait > 0 and start != BEFORE_ALL else None
        with redis_errors(self._address, stream):
            while True:
                if tap is None or not tap.covers(start):
                    found = await self._fetch(key, start, max_records, max_bytes)
                    if found or max_wait <= 0:
                        return found
                    tap = await self._pump.attach(key, start)
                found = tap.after(start, max_records, max_bytes)
                now = self._loop.time()
                tap.used = now
                if found or now >= until:
                    return found
                await tap.wait(until - now)

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        self._check_open()
        key = self._keys.key(stream)
        newest: list[Command] = [("XREVRANGE", key, "+", "-", "COUNT", last)] if last > 0 else []
        with redis_errors(self._address, stream):
            wire = await self._asking.wire()
            replies = await wire.call(*self._facts(key), *newest)
            info = self._info(stream, replies)
            if newest and info is not None:
                records = tuple(parse_entries(_checked(replies[3])))
                info = dataclasses.replace(info, last=records)
        if info is None:
            raise StreamNotFoundError(
                f"there is no stream {stream} (never written, deleted, or expired)",
                backend=BACKEND,
                stream=str(stream),
            )
        return info

    async def delete(self, stream: StreamId) -> None:
        self._check_open()
        key = self._keys.key(stream)
        with redis_errors(self._address, stream):
            wire = await self._asking.wire()
            (reply,) = await wire.call(("UNLINK", key))
            _checked(reply)
        self._appender.forget(key)
        self._record_bytes.pop(key, None)
        self._pump.drop(key)

    async def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        self._check_open()
        pattern = self._keys.pattern(tenant, prefix)
        seen: set[StreamId] = set()
        cursor: bytes = b"0"
        while True:
            with redis_errors(self._address):
                wire = await self._asking.wire()
                (reply,) = await wire.call(
                    ("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN_COUNT, "TYPE", "stream")
                )
                page = _checked(reply)
                assert isinstance(page, list)
                cursor, keys = page  # type: ignore[assignment]
                found: list[StreamId] = []
                for key in keys:  # type: ignore[union-attr]
                    stream = self._keys.stream(key)  # type: ignore[arg-type]
                    if stream is not None and stream not in seen:
                        seen.add(stream)
                        found.append(stream)
                facts: list[Reply] = []
                if found:
                    facts = await wire.call(
                        *(fact for stream in found for fact in self._facts(self._keys.key(stream)))
                    )
                infos = [
                    self._info(stream, facts[3 * at : 3 * at + 3])
                    for at, stream in enumerate(found)
                ]
            for info in infos:
                if info is not None:
                    yield info
            if cursor == b"0":
                return
            self._check_open()

    async def aclose(self) -> None:
        self._is_closed = True
        self._pump.close()
        links = (self._writing, self._asking, self._blocking)
        for link in links:  # first all that cannot be cancelled
            link.close()
        await asyncio.gather(*(link.gone() for link in links))

    # -- inside --------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._is_closed:
            raise closed_error()

    async def _connect(self) -> Wire:
        return await connect(
            self._pool,
            timeout_seconds=self._settings.connect_timeout_seconds,
            patience=self._settings.operation_timeout_seconds,
        )

    async def _connect_blocking(self) -> Wire:
        wire = await self._connect()
        try:
            await check_unblock(wire)
        except BaseException:
            wire.abort(closed_error() if self._is_closed else rx.ConnectionError("not needed"))
            await wire.gone()
            raise
        return wire

    async def _fetch(self, key: bytes, start: Id, max_records: int, max_bytes: int) -> list[Stored]:
        # Ask for about as much as may be returned, by the size of this stream's last records; while
        # nothing is known of them, for few. Then for twice as many each time.
        typical = self._record_bytes.get(key)
        count = _FIRST_PAGE if typical is None else max_bytes // typical
        found: list[Stored] = []
        room = max_bytes
        while True:
            count = max(1, min(count, _LARGEST_PAGE, max_records - len(found)))
            place = found[-1].position if found else encode_position(start)
            try:
                wire = self._asking.current or await self._asking.wire()
                (reply,) = await wire.call(("XRANGE", key, f"({place}", "+", "COUNT", count))
                records = parse_entries(_checked(reply))
            except (rx.RedisError, OSError) as exc:
                if isinstance(exc, rx.TimeoutError):
                    # A slow link: half as many next time.
                    self._learn(key, max_bytes // max(1, count // 2))
                if found:
                    return found
                raise
            if not records:
                return found
            typical = self._learn(key, sum(len(each.data) for each in records) // len(records))
            fitting = fit(records, max_records - len(found), room)
            size = sum(len(each.data) for each in fitting)
            if size > room and found:
                return found
            found += fitting
            room -= size
            is_all = len(records) < count or len(fitting) < len(records)
            is_enough = count == _LARGEST_PAGE or len(found) >= max_records or room < typical
            if is_all or is_enough:
                return found
            count = min(2 * count, room // typical)

    def _learn(self, key: bytes, record_bytes: int) -> int:
        """Remember how large the records of a stream are; never 0, to be divided by."""
        self._record_bytes[key] = typical = 1 + record_bytes
        self._record_bytes.move_to_end(key)
        if len(self._record_bytes) > _REMEMBERED_SIZES:
            self._record_bytes.popitem(last=False)
        return typical

    @staticmethod
    def _facts(key: bytes) -> list[Command]:
        return [("XLEN", key), ("PTTL", key), ("MEMORY", "USAGE", key)]

    def _info(self, stream: StreamId, facts: Sequence[Reply]) -> StreamInfo | None:
        """Build the answer from the replies to :meth:`_facts`; ``None`` if there is no stream."""
        records, left, size = _checked(facts[0]), _checked(facts[1]), facts[2]
        assert isinstance(records, int)
        assert isinstance(left, int)
        if left == -2 or not records:
            return None
        expires_in = None
        if left >= 0:
            expires_in = timedelta(milliseconds=left)
            # Never promise the extra time by which the appender sets it longer.
            if self._ttl < expires_in <= self._ttl + self._appender.lag:
                expires_in = self._ttl
        return StreamInfo(
            stream,
            records=records,
            size_bytes=size if isinstance(size, int) else None,
            expires_in=expires_in,
        )


def _checked(reply: Reply) -> Reply:
    if isinstance(reply, rx.RedisError):
        raise reply
    return reply
