"""A driver that can do next to nothing, and says so: what is not declared is not demanded."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from streamq.driver import (
    Capabilities,
    ChunkQueue,
    ClosedError,
    CursorError,
    Driver,
    DriverSettings,
    Entry,
    LatencyClass,
    QueueOptions,
    Stored,
    StreamId,
    StreamInfo,
    StreamNotFoundError,
)
from streamq.testing import BackendHarness, DriverSuite

_NOTHING = Capabilities(
    replay=False,
    fan_out=False,
    ordered=False,
    fenced=False,
    durable=False,
    cross_process=False,
    cross_host=False,
    expires=False,
    max_record_bytes=2**20,
    latency=LatencyClass.SECONDS,
)


class ModestSettings(DriverSettings):
    """Settings of the modest driver."""

    model_config = SettingsConfigDict(env_prefix="STREAMQ_MODEST_")

    toml_table = "modest"

    store: str = Field(default="", description="queues with the same store share their streams")


class Store:
    """What is there: in no particular order, until somebody takes it."""

    def __init__(self) -> None:
        self.streams: dict[StreamId, list[bytes]] = {}
        self.taken: dict[StreamId, int] = {}
        self.changed = asyncio.Condition()
        self.dice = random.Random(7)


class ModestQueue(ChunkQueue):
    """Records come once, to whoever is first, in any order, perhaps twice."""

    backend = "modest"
    capabilities = _NOTHING

    def __init__(self, store: Store) -> None:
        self.store = store
        self.is_closed = False

    def check_open(self) -> None:
        if self.is_closed:
            raise ClosedError("closed", backend=self.backend)

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        self.check_open()
        for entry in entries:
            self.store.streams.setdefault(stream, []).append(entry.data)
        async with self.store.changed:
            self.store.changed.notify_all()

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        self.check_open()
        if after and not after.isdecimal():
            raise CursorError(
                f"{after[:9]!r} is no receipt", backend=self.backend, stream=str(stream)
            )
        try:
            async with asyncio.timeout(max_wait), self.store.changed:
                await self.store.changed.wait_for(
                    lambda: self.store.streams.get(stream) or self.is_closed
                )
        except TimeoutError:
            if not max_wait and self.store.streams.get(stream):
                return self.take(stream, max_records, max_bytes)
            return []
        self.check_open()
        return self.take(stream, max_records, max_bytes)

    def take(self, stream: StreamId, max_records: int, max_bytes: int) -> list[Stored]:
        there, size = self.store.streams[stream], 0
        taken: list[Stored] = []
        self.store.dice.shuffle(there)
        while there and len(taken) < max_records:
            size += len(there[-1])
            if taken and size > max_bytes:
                break
            number = self.store.taken[stream] = self.store.taken.get(stream, 0) + 1
            taken.append(Stored(str(number), there.pop()))
        return taken

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        self.check_open()
        if stream not in self.store.streams:
            raise StreamNotFoundError("none", backend=self.backend, stream=str(stream))
        there = self.store.streams[stream]
        newest = [Stored("0", data) for data in reversed(there[-last:])] if last else []
        return StreamInfo(stream, tuple(newest), len(there))

    async def delete(self, stream: StreamId) -> None:
        self.check_open()
        self.store.streams.pop(stream, None)

    async def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        self.check_open()
        for stream in list(self.store.streams):
            if stream.tenant == tenant and stream.name.startswith(prefix):
                yield StreamInfo(stream)

    async def aclose(self) -> None:
        self.is_closed = True
        async with self.store.changed:
            self.store.changed.notify_all()


class ModestDriver(Driver[ModestSettings]):
    """Promises nothing."""

    name = "modest"
    summary = "promises nothing, and keeps that"
    capabilities = _NOTHING
    settings_type = ModestSettings
    stores: ClassVar[dict[str, Store]] = {}

    @classmethod
    async def open(cls, options: QueueOptions, settings: ModestSettings) -> ChunkQueue:
        """Return a queue on the named store."""
        return ModestQueue(cls.stores.setdefault(settings.store, Store()))


class ModestHarness(BackendHarness):
    """Supplies no hook at all."""

    driver = ModestDriver

    def settings(self) -> ModestSettings:
        """Return settings that lead to the check's own store."""
        return ModestSettings(store=str(self.directory))

    async def stop(self) -> None:
        """Forget the store."""
        ModestDriver.stores.pop(str(self.directory), None)


class TestModest(DriverSuite):
    """All that is left of the contract when nothing is declared."""

    harness_type = ModestHarness
    virtual_time = True
