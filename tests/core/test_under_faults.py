"""Random attempts, faults and interruptions against a model of what every reader must receive."""

import asyncio
import dataclasses
import random
import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.kit.log_driver import Log, LogQueue

from streamq import (
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
from streamq.driver import ChunkQueue, QueueOptions
from streamq.sqlite import SqliteDriver, SqliteSettings
from streamq.testing import (
    Call,
    Fail,
    Fault,
    FaultyQueue,
    Forward,
    LoseAcknowledgement,
    StorePrefix,
)

Story = list[tuple[str, object]]


@dataclasses.dataclass(frozen=True)
class Little(Fault):
    """A read returns a few records only, and does not wait for long.

    One that does not wait at all returns everything, by contract.
    """

    max_records: int

    async def apply(self, call: Call, forward: Forward) -> object:
        if not call.max_wait:
            return await forward(call)
        wait = min(call.max_wait, 0.05)
        return await forward(dataclasses.replace(call, max_records=self.max_records, max_wait=wait))


def unreliable(queue: ChunkQueue, chance: random.Random) -> FaultyQueue:
    """Fail now and then: before an append, in its middle, after it; and in every kind of read."""
    faulty = FaultyQueue(queue)

    def of_append(call: Call) -> Fault | None:
        lot = chance.random()
        if lot < 0.1:
            return Fail()
        if lot < 0.2:
            return StorePrefix(chance.randrange(len(call.entries) + 1))
        return LoseAcknowledgement() if lot < 0.3 else None

    faulty.always("append", of_append)
    faulty.always(
        "read", lambda _: Fail() if chance.random() < 0.1 else Little(chance.randrange(1, 5))
    )
    faulty.always("newest_epoch", lambda _: Fail() if chance.random() < 0.1 else None)
    faulty.always("describe", lambda _: Fail() if chance.random() < 0.1 else None)
    return faulty


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
        await stale.finish()
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


def story_of(events: list[Event]) -> Story:
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


@pytest.fixture(params=["memory", "sqlite", "log"])
async def backend(
    request: pytest.FixtureRequest, queue: ChunkQueue, tmp_path: Path
) -> AsyncIterator[ChunkQueue]:
    """The reference implementation, a real one with threads and files, one that does not fence."""
    if request.param == "memory":
        yield queue
        return
    if request.param == "log":
        yield LogQueue(Log())
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
    faulty = unreliable(backend, chance)
    small = settings.model_copy(update={"buffer_bytes": chance.choice([60, 1_000, 10**6])})
    name = uuid.uuid4().hex
    readers = [
        asyncio.create_task(read(faulty, name, small, random.Random(seed * 10 + i)))
        for i in range(3)
    ]
    story = await write(faulty, name, small, chance)
    late = await read(faulty, name, small, random.Random(seed * 10 + 9))
    for events in (*await asyncio.gather(*readers), late):
        assert story_of(events) == story
        assert [event.offset for event in events] == list(range(1, len(story) + 1))
