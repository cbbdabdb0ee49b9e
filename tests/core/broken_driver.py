"""A driver whose calls can be replaced one by one: what a third party's defects do to streamq."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, TypeAlias

from streamq import Settings, open_reader, open_writer
from streamq import describe as status_of
from streamq.driver import (
    Capabilities,
    ChunkQueue,
    Driver,
    Entry,
    QueueOptions,
    Stored,
    StreamId,
    StreamInfo,
)
from streamq.memory import MemoryDriver, MemorySettings

Defect: TypeAlias = Callable[..., Any]
"""Called in place of a call of the queue, with the sound queue and the arguments."""


class AcmeQueue(ChunkQueue):
    """The memory driver's queue, with defects.

    Args:
        inner: The sound queue.
        defects: For each method that is defective, what it does instead.
        capabilities: What to promise instead of the promises of ``inner``.
    """

    backend = "acme"

    def __init__(
        self,
        inner: ChunkQueue,
        capabilities: Capabilities | None = None,
        /,
        **defects: Defect,
    ) -> None:
        self.capabilities = capabilities or inner.capabilities
        self.inner = inner
        self.defects = defects

    def _do(self, method: str, *args: Any, **options: Any) -> Any:
        if (defect := self.defects.get(method)) is not None:
            return defect(self.inner, *args, **options)
        return getattr(self.inner, method)(*args, **options)

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        await self._do("append", stream, entries, ttl=ttl)

    async def read(self, stream: StreamId, after: str, **limits: Any) -> Sequence[Stored]:
        found: Sequence[Stored] = await self._do("read", stream, after, **limits)
        return found

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        info: StreamInfo = await self._do("describe", stream, last=last)
        return info

    async def delete(self, stream: StreamId) -> None:
        await self._do("delete", stream)

    def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        infos: AsyncIterator[StreamInfo] = self._do("streams", tenant, prefix)
        return infos

    async def commit(self, stream: StreamId, upto: str) -> None:
        await self._do("commit", stream, upto)

    async def release(self, stream: StreamId, after: str) -> None:
        await self._do("release", stream, after)

    async def newest_epoch(self, stream: StreamId) -> int:
        epoch: int = await self._do("newest_epoch", stream)
        return epoch

    async def sweep(self) -> int:
        swept: int = await self._do("sweep")
        return swept

    async def aclose(self) -> None:
        await self._do("aclose")


class AcmeDriver(Driver[MemorySettings]):
    """Opens what a test wants opened."""

    name = "acme"
    summary = "for tests"
    capabilities = MemoryDriver.capabilities
    settings_type = MemorySettings
    opener: Callable[[ChunkQueue], Awaitable[Any]]

    @classmethod
    async def open(cls, options: QueueOptions, settings: MemorySettings) -> Any:
        return await cls.opener(await MemoryDriver.open(options, settings))


def raising(error: BaseException) -> Defect:
    """A call that raises."""

    async def defect(*_: Any, **__: Any) -> Any:
        raise error

    return defect


def returning(value: object) -> Defect:
    """A call that returns something whatever it is asked."""

    async def defect(*_: Any, **__: Any) -> Any:
        return value

    return defect


def altering(method: str, change: Callable[..., Any]) -> Defect:
    """A call whose sound answer is changed."""

    async def defect(inner: ChunkQueue, *args: Any, **options: Any) -> Any:
        return change(await getattr(inner, method)(*args, **options))

    return defect


def listing(*infos: object) -> Defect:
    """A listing of these streams."""

    async def defect(*_: Any) -> AsyncIterator[Any]:
        for info in infos:
            yield info

    return defect


async def write(queue: AcmeQueue, settings: Settings) -> None:
    """Open a new attempt, and end it."""
    async with open_writer("s", queue=queue, settings=settings) as writer:
        await writer.send_chunk("x")


async def read(queue: AcmeQueue, settings: Settings) -> None:
    """Read to the end."""
    async with open_reader("s", queue=queue, settings=settings) as reader:
        await reader.collect()


async def status(queue: AcmeQueue, settings: Settings) -> None:
    """Ask where the stream stands."""
    await status_of("s", queue=queue, settings=settings)
