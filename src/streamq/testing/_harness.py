"""What the checks stand on: fixtures, unique streams, and reading until enough has arrived."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, ClassVar, TypeAlias, TypeVar

import pytest

from streamq.driver import (
    START,
    ChunkQueue,
    Driver,
    Entry,
    QueueOptions,
    SettingsT,
    Stored,
    StreamId,
)

OpenQueue: TypeAlias = Callable[..., Awaitable[ChunkQueue]]
"""Opens one more connection to the backend under test; takes an optional ``ttl: timedelta``."""

LONG_TTL = timedelta(minutes=5)
PLENTY_BYTES = 64 * 2**20
T = TypeVar("T")


@asynccontextmanager
async def queue_factory(
    driver: type[Driver[SettingsT]], settings: SettingsT, *, ttl: timedelta = LONG_TTL
) -> AsyncIterator[OpenQueue]:
    """Open queues on demand and close all of them at the end.

    Args:
        driver: The driver under test.
        settings: How every connection reaches the one backend that they share.
        ttl: Time to live for queues that are opened without one.
    """
    opened: list[ChunkQueue] = []

    async def open_queue(ttl: timedelta = ttl) -> ChunkQueue:
        queue = await driver.open(QueueOptions(ttl=ttl), settings)
        opened.append(queue)
        return queue

    try:
        yield open_queue
    finally:
        for queue in opened:
            await queue.aclose()


def new_stream(name: str = "") -> StreamId:
    """Return a stream that no other test uses, in a tenant of its own."""
    token = uuid.uuid4().hex
    return StreamId(f"t-{token[:12]}", name or f"s-{token}")


def entries(*data: bytes, epoch: int = 1, first: int = 0) -> list[Entry]:
    """Number records within one epoch."""
    return [Entry(epoch, first + i, item) for i, item in enumerate(data)]


def numbered(count: int, label: str = "r") -> list[bytes]:
    """Return recognisable payloads, all different."""
    return [f"{label}{i}".encode() for i in range(count)]


def data_of(records: Iterable[Stored]) -> list[bytes]:
    """Return what was stored, without positions."""
    return [record.data for record in records]


def require(queue: ChunkQueue, *flags: str) -> None:
    """Skip the test unless the queue declares these capabilities."""
    for flag in flags:
        if not getattr(queue.capabilities, flag):
            pytest.skip(f"{queue.backend} does not declare {flag!r}")


class Harness:
    """Fixtures and helpers of :class:`streamq.testing.DriverSuite`.

    Attributes:
        patience: Seconds to wait for something that has to happen before the test fails.
        short_ttl: Time to live for tests that wait for a stream to expire.
    """

    patience: ClassVar[float] = 15.0
    short_ttl: ClassVar[timedelta] = timedelta(seconds=0.6)

    @pytest.fixture
    async def open_queue(self) -> AsyncIterator[OpenQueue]:
        """Return a function that opens one more connection; the driver's tests override this."""
        raise NotImplementedError("override the open_queue fixture; queue_factory helps")
        yield  # noqa: PT022 - makes it an async generator, as overriding fixtures are

    @pytest.fixture
    async def queue(self, open_queue: OpenQueue) -> ChunkQueue:
        """Return an open queue."""
        return await open_queue()

    @pytest.fixture
    def stream(self) -> StreamId:
        """Return a stream that no other test uses."""
        return new_stream()

    async def read(
        self,
        queue: ChunkQueue,
        stream: StreamId,
        after: str = START,
        *,
        max_records: int = 1000,
        max_bytes: int = PLENTY_BYTES,
        max_wait: float | None = None,
    ) -> Sequence[Stored]:
        """Read once, with generous bounds, and never wait longer than twice our patience."""
        wait = self.patience if max_wait is None else max_wait
        async with asyncio.timeout(2 * self.patience):
            return await queue.read(
                stream, after, max_records=max_records, max_bytes=max_bytes, max_wait=wait
            )

    async def read_many(
        self, queue: ChunkQueue, stream: StreamId, count: int, after: str = START
    ) -> list[Stored]:
        """Read on until ``count`` records have come, or nothing more does."""
        found: list[Stored] = []
        while len(found) < count:
            batch = await self.read(queue, stream, after)
            if not batch:
                break
            found += batch
            after = batch[-1].position
        return found

    async def expect(
        self, queue: ChunkQueue, stream: StreamId, expected: list[bytes], after: str = START
    ) -> list[Stored]:
        """Read the stream to its end and compare: nothing missing, nothing extra, in order."""
        found = await self.read_many(queue, stream, len(expected), after)
        tail = found[-1].position if found else after
        found += await self.read(queue, stream, tail, max_wait=0)
        if queue.capabilities.ordered:
            assert expected == data_of(found)
        else:
            assert sorted(expected) == sorted(data_of(found))
        return found

    async def blocked(self, read: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a read that has nothing to return yet, and see that it waits."""
        task = asyncio.ensure_future(read)
        # No event tells that somebody waits: the only proof is that the read does not return.
        done, _ = await asyncio.wait({task}, timeout=0.05)
        assert not done, "a read with nothing to return came back before its max_wait"
        return task

    async def eventually(self, condition: Callable[[], Awaitable[bool]], what: str) -> None:
        """Ask again until the condition holds; fail when our patience is over."""
        try:
            async with asyncio.timeout(self.patience):
                while not await condition():  # noqa: ASYNC110 - a backend has no event for this
                    await asyncio.sleep(0.02)
        except TimeoutError:
            pytest.fail(f"still not so after {self.patience:g} s: {what}")
