"""Random attempts, faults and interruptions against a model: what every reader must have seen."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from streamq import (
    BackendUnavailableError,
    Chunk,
    Event,
    FencedError,
    OnRetry,
    Reset,
    Seal,
    Settings,
    StreamWriter,
    open_reader,
    open_writer,
)
from streamq.driver import ChunkQueue, Entry, QueueOptions, Stored, StreamId, StreamInfo
from streamq.sqlite import SqliteDriver, SqliteSettings

Story = list[tuple[str, object]]


class UnreliableQueue(ChunkQueue):
    """Fails now and then: before an append, in its middle, after it; and in every kind of read."""

    def __init__(self, inner: ChunkQueue, chance: random.Random) -> None:
        self.backend = inner.backend
        self.capabilities = inner.capabilities
        self._inner = inner
        self._chance = chance

    def _may_fail(self, share: float) -> None:
        if self._chance.random() < share:
            raise BackendUnavailableError("injected")

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        self._may_fail(0.1)
        stored = self._chance.randrange(len(entries) + 1) if self._chance.random() < 0.1 else None
        await self._inner.append(stream, entries[:stored], ttl=ttl)
        if stored is not None:
            self._may_fail(1)
        self._may_fail(0.1)

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        self._may_fail(0.1)
        return await self._inner.read(
            stream,
            after,
            max_records=self._chance.randrange(1, 5),
            max_bytes=max_bytes,
            max_wait=min(max_wait, 0.05),
        )

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        self._may_fail(0.1)
        return await self._inner.describe(stream, last=last)

    async def delete(self, stream: StreamId) -> None:
        await self._inner.delete(stream)

    def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        return self._inner.streams(tenant, prefix)

    async def aclose(self) -> None:
        """The inner queue belongs to somebody else."""


async def read(
    queue: ChunkQueue, name: str, settings: Settings, chance: random.Random
) -> list[Event]:
    """Read to the seal, cancelling reads at random and going on by cursor in new readers."""
    events: list[Event] = []
    cursor = "beginning"
    while not (events and isinstance(events[-1], Seal)):
        async with open_reader(name, from_=cursor, queue=queue, settings=settings) as reader:
            for _ in range(chance.randrange(1, 30)):
                try:
                    async with asyncio.timeout(chance.choice([0.0005, 0.002, 5])):
                        events.append(await anext(reader))
                except TimeoutError:
                    continue
                except StopAsyncIteration:
                    break
            cursor = reader.cursor
    return events


async def write_on(stale: StreamWriter) -> None:
    """Go on writing after a takeover, as a stalled worker does; it must be refused."""
    for i in range(3):
        await stale.send_chunk(f"stale {i}")
    with pytest.raises(FencedError):
        await stale.flush()
    await stale.aclose()


async def write(queue: ChunkQueue, name: str, settings: Settings, chance: random.Random) -> Story:
    """Write a stream in up to four attempts; return what readers must see."""
    story: Story = []
    previous: StreamWriter | None = None
    for attempt in range(1, chance.randrange(2, 6)):
        policy = chance.choice(list(OnRetry))
        writer = await open_writer(
            name, queue=queue, settings=settings, epoch=attempt * 10, on_retry=policy
        )
        if policy is OnRetry.RESTART and story:
            story.append(("reset", attempt))
        stalled = asyncio.create_task(write_on(previous)) if previous else None
        if policy is OnRetry.REPLAY:
            for value in current(story):
                await writer.send_chunk(value)
        for i in range(chance.randrange(40)):
            await writer.send_chunk(f"{attempt}.{i}")
            story.append(("chunk", f"{attempt}.{i}"))
            if chance.random() < 0.3:
                await asyncio.sleep(0)
        await writer.flush()
        if stalled is not None:
            await stalled
        previous = writer
    await writer.finish()
    await writer.aclose()
    return [*story, ("seal", "END")]


def current(story: Story) -> list[object]:
    """The chunks that count: those after the last reset."""
    resets = [i for i, (kind, _) in enumerate(story) if kind == "reset"]
    return [value for kind, value in story[resets[-1] if resets else 0 :] if kind == "chunk"]


def told(events: list[Event]) -> Story:
    """Return what a reader saw, in the model's words."""
    story: Story = []
    for event in events:
        if isinstance(event, Chunk):
            story.append(("chunk", event.value))
        elif isinstance(event, Reset):
            story.append(("reset", event.attempt))
        elif isinstance(event, Seal):
            story.append(("seal", event.state.name))
    return story


@pytest.fixture(params=["memory", "sqlite"])
async def backend(
    request: pytest.FixtureRequest, queue: ChunkQueue, tmp_path: Path
) -> AsyncIterator[ChunkQueue]:
    """The reference implementation, and a real one with threads and files."""
    if request.param == "memory":
        yield queue
        return
    options = QueueOptions(ttl=timedelta(minutes=5))
    opened = await SqliteDriver.open(options, SqliteSettings(path=tmp_path / "streams.db"))
    async with opened:
        yield opened


@pytest.mark.parametrize("seed", range(12))
async def test_every_reader_sees_the_story_once_whatever_fails(
    backend: ChunkQueue, settings: Settings, seed: int
) -> None:
    """Lost acknowledgements, partial appends, takeovers, stale writers, cancelled reads: nothing
    is lost, repeated, reordered or blended, and all readers agree on every offset."""
    chance = random.Random(seed)
    unreliable = UnreliableQueue(backend, chance)
    small = settings.model_copy(update={"buffer_bytes": chance.choice([60, 1_000, 10**6])})
    name = uuid.uuid4().hex
    readers = [
        asyncio.create_task(read(unreliable, name, small, random.Random(seed * 10 + i)))
        for i in range(3)
    ]
    story = await write(unreliable, name, small, chance)
    late = await read(unreliable, name, small, random.Random(seed * 10 + 9))
    for events in (*await asyncio.gather(*readers), late):
        assert told(events) == story
        assert [event.offset for event in events] == list(range(1, len(story) + 1))
