"""A driver over one shared log, like Kafka's: it keeps a total order and does not fence."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from streamq.driver import (
    START,
    Capabilities,
    ChunkQueue,
    Driver,
    DriverSettings,
    Entry,
    Guard,
    LatencyClass,
    QueueOptions,
    Stored,
    StreamId,
    StreamInfo,
    foreign_position,
    not_found_error,
)
from streamq.testing import BackendHarness

_CAPABILITIES = Capabilities(
    replay=True,
    fan_out=True,
    ordered=True,
    fenced=False,
    durable=False,
    cross_process=False,
    cross_host=False,
    expires=False,
    erases=False,
    max_record_bytes=2**20,
    latency=LatencyClass.MILLISECONDS,
)


class LogSettings(DriverSettings):
    """Settings of the log driver."""

    model_config = SettingsConfigDict(env_prefix="STREAMQ_LOG_")

    toml_table = "log"

    store: str = Field(default="", description="queues with the same store share their log")


@dataclass
class Log:
    """Records of all streams, in the order of their arrival."""

    records: list[tuple[StreamId, bytes]] = field(default_factory=list)
    heads: dict[StreamId, int] = field(default_factory=dict)  # where a stream begins
    epochs: dict[StreamId, int] = field(default_factory=dict)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)


class LogQueue(ChunkQueue):
    """Appends every record; remembers the epochs that it has seen."""

    backend = "log"
    capabilities = _CAPABILITIES

    def __init__(self, log: Log) -> None:
        self.log = log
        self.guard = Guard(self.backend, seconds=10)

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        log = self.log
        async with self.guard(stream):
            for entry in entries:
                if entry.index == 0:
                    log.epochs[stream] = max(log.epochs.get(stream, 0), entry.epoch)
                await asyncio.sleep(0.001)  # another attempt may append in between
                log.heads.setdefault(stream, len(log.records))
                log.records.append((stream, bytes(entry.data)))
            async with log.changed:
                log.changed.notify_all()

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        if after != START and not after.isdecimal():
            raise foreign_position(self.backend, stream, after)
        async with self.guard(stream, seconds=max_wait + 10):
            try:
                async with asyncio.timeout(max_wait), self.log.changed:
                    while not (found := self.select(stream, after, max_records, max_bytes)):
                        await self.log.changed.wait()
            except TimeoutError:
                return []
            return found

    def select(
        self, stream: StreamId, after: str, max_records: int, max_bytes: int
    ) -> list[Stored]:
        head = self.log.heads.get(stream)
        if head is None:
            return []
        found: list[Stored] = []
        size = 0
        for place in range(max(head, int(after or 0)), len(self.log.records)):
            owner, data = self.log.records[place]
            if owner != stream:
                continue
            size += len(data)
            if len(found) == max_records or (found and size > max_bytes):
                break
            found.append(Stored(str(place + 1), data))
        return found

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        self.guard.check(stream)
        if stream not in self.log.heads:
            raise not_found_error(self.backend, stream)
        there = self.select(stream, START, 10**9, 10**12)
        return StreamInfo(stream, tuple(reversed(there[-last:])) if last else (), len(there))

    async def delete(self, stream: StreamId) -> None:
        self.guard.check(stream)
        self.log.heads.pop(stream, None)
        self.log.epochs.pop(stream, None)

    async def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        self.guard.check()
        for stream in list(self.log.heads):
            if stream.tenant == tenant and stream.name.startswith(prefix):
                yield StreamInfo(stream)

    async def newest_epoch(self, stream: StreamId) -> int:
        self.guard.check(stream)
        return self.log.epochs.get(stream, 0)

    async def aclose(self) -> None:
        self.guard.close()


class LogDriver(Driver[LogSettings]):
    """One log for all streams of a store."""

    name = "log"
    summary = "one log for all streams, without a fence"
    capabilities = _CAPABILITIES
    settings_type = LogSettings
    logs: ClassVar[dict[str, Log]] = {}

    @classmethod
    async def open(cls, options: QueueOptions, settings: LogSettings) -> ChunkQueue:
        """Return a queue on the named log."""
        return LogQueue(cls.log(settings))

    @classmethod
    def log(cls, settings: LogSettings) -> Log:
        """Return the named log; create it if necessary."""
        return cls.logs.setdefault(settings.store, Log())


class LogHarness(BackendHarness):
    """Gives each check a log of its own."""

    driver = LogDriver

    def settings(self) -> LogSettings:
        """Return settings of this check's log."""
        return LogSettings(store=str(self.directory))

    async def peek(self, stream: StreamId) -> list[bytes]:
        """Return what the log holds of a stream, deleted or not."""
        records = LogDriver.log(self.settings()).records
        return [data for owner, data in records if owner == stream]

    async def stop(self) -> None:
        """Remove the log."""
        LogDriver.logs.pop(str(self.directory), None)
