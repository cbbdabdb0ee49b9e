"""Typed values, codecs and batch mode: everything between a user's value and the backend."""

from __future__ import annotations

import contextlib
import tracemalloc
import uuid
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

import pytest
from pydantic import BaseModel

from streamq import (
    BufferFullError,
    Chunk,
    CorruptRecordError,
    Encoding,
    OnRetry,
    Reset,
    Seal,
    SealState,
    SerializationError,
    Settings,
    describe,
    load_settings,
    open_reader,
    open_writer,
)
from streamq.driver import START, ChunkQueue, QueueOptions, StreamId
from streamq.memory import MemoryDriver, MemorySettings


class Token(BaseModel):
    text: str
    score: float = 0.0


@dataclass
class Line:
    number: int
    text: str


class Xor:
    """Not encryption, but nothing readable either."""

    def __init__(self, key: int = 0x5A) -> None:
        self.key = key

    async def encode(self, data: bytes) -> bytes:
        return bytes(byte ^ self.key for byte in zlib.compress(data))

    async def decode(self, data: bytes) -> bytes:
        return zlib.decompress(bytes(byte ^ self.key for byte in data))


@pytest.fixture
def settings() -> Settings:
    return load_settings(backend="memory", idle_seconds=5, retry_seconds=1)


@pytest.fixture
async def queue() -> AsyncIterator[ChunkQueue]:
    options = QueueOptions(ttl=timedelta(minutes=5))
    async with await MemoryDriver.open(options, MemorySettings(store=uuid.uuid4().hex)) as opened:
        yield opened


async def stored(queue: ChunkQueue, name: str) -> bytes:
    found = await queue.read(
        StreamId("default", name), START, max_records=1_000, max_bytes=10**7, max_wait=0
    )
    return b"".join(each.data for each in found)


async def test_models_arrive_as_models(queue: ChunkQueue, settings: Settings) -> None:
    """A consumer wants its own type back, not a dict to pick apart."""
    async with open_writer("s", queue=queue, settings=settings) as writer:
        await writer.send_chunk(Token(text="a", score=0.5))
    async with open_reader("s", queue=queue, settings=settings, value_type=Token) as reader:
        assert await reader.collect() == [Token(text="a", score=0.5)]


async def test_dataclasses_arrive_as_dataclasses(queue: ChunkQueue, settings: Settings) -> None:
    """Not every user has pydantic models."""
    async with open_writer("s", queue=queue, settings=settings) as writer:
        await writer.send_chunk(Line(1, "a"))
    async with open_reader("s", queue=queue, settings=settings, value_type=Line) as reader:
        assert await reader.collect() == [Line(1, "a")]


async def test_the_error_of_a_value_of_another_type_names_the_place(
    queue: ChunkQueue, settings: Settings
) -> None:
    """The message has to lead to the producer that changed, without repeating the data."""
    async with open_writer("s", queue=queue, settings=settings) as writer:
        await writer.send_chunk({"text": "secret", "score": "high"})
    async with open_reader("s", queue=queue, settings=settings, value_type=Token) as reader:
        event = await anext(reader)
        assert isinstance(event, Chunk)
        with pytest.raises(SerializationError, match="not a Token: score") as caught:
            _ = event.value
    assert "secret" not in str(caught.value)
    assert "high" not in str(caught.value)


async def test_with_a_codec_nothing_is_readable_in_the_backend(
    queue: ChunkQueue, settings: Settings
) -> None:
    """Neither chunks nor the reason of a failure may be readable in the backend."""
    codec = Xor()
    writer = await open_writer("s", queue=queue, settings=settings, codec=codec)
    await writer.send_chunk("very secret words")
    await writer.flush()
    await writer.fail("very secret reason", error_type="VerySecretType")
    await writer.aclose()
    data = (await stored(queue, "s")).lower()
    assert b"secret" not in data
    async with open_reader("s", queue=queue, settings=settings, codec=codec) as reader:
        chunk, seal = [event async for event in reader]
    assert isinstance(chunk, Chunk)
    assert isinstance(seal, Seal)
    assert chunk.value == "very secret words"
    assert (seal.error_type, seal.message) == ("VerySecretType", "very secret reason")


async def test_the_status_of_a_coded_stream_needs_no_codec(
    queue: ChunkQueue, settings: Settings
) -> None:
    """A sweep, a list and the next attempt need the numbers, not the key."""
    async with open_writer("s", queue=queue, settings=settings, codec=Xor()) as writer:
        for word in ("a", "b", "c"):
            await writer.send_chunk(word)
    status = await describe("s", queue=queue, settings=settings)
    assert status.offset == 4
    assert status.seal is not None
    assert (status.seal.state, status.seal.message) == (SealState.END, "")


async def test_a_reader_without_the_codec_gets_an_error_that_names_it(
    queue: ChunkQueue, settings: Settings
) -> None:
    """It must never get bytes that look like garbage, nor an empty stream."""
    async with open_writer("s", queue=queue, settings=settings, codec=Xor()) as writer:
        await writer.send_chunk("a")
    async with open_reader("s", queue=queue, settings=settings) as reader:
        for _ in range(2):
            with pytest.raises(SerializationError, match="payload codec"):
                await anext(reader)


async def test_a_reader_with_another_key_gets_an_error_that_names_it(
    queue: ChunkQueue, settings: Settings
) -> None:
    """A rotated key is a typed error, not a traceback of a library."""
    async with open_writer("s", queue=queue, settings=settings, codec=Xor()) as writer:
        await writer.send_chunk("a")
    async with open_reader("s", queue=queue, settings=settings, codec=Xor(0x11)) as reader:
        with pytest.raises(SerializationError, match="cannot decode a record"):
            await anext(reader)


async def test_a_codec_that_returns_something_else_is_detected(
    queue: ChunkQueue, settings: Settings
) -> None:
    """The decoded bytes are checked against the numbers that are readable."""

    class Cut(Xor):
        async def decode(self, data: bytes) -> bytes:
            return (await super().decode(data))[:-1]

    async with open_writer("s", queue=queue, settings=settings, codec=Xor()) as writer:
        await writer.send_chunk("a")
    async with open_reader("s", queue=queue, settings=settings, codec=Cut()) as reader:
        with pytest.raises(CorruptRecordError, match="same codec"):
            await anext(reader)


async def test_a_codec_that_fails_stops_the_writer(queue: ChunkQueue, settings: Settings) -> None:
    """Nothing may be stored in clear because the key service is unavailable."""

    class Broken(Xor):
        async def encode(self, data: bytes) -> bytes:
            raise OSError("key service is away")

    writer = await open_writer("s", queue=queue, settings=settings, codec=Broken())
    await writer.send_chunk("very secret words")
    with pytest.raises(SerializationError, match="key service is away") as caught:
        await writer.flush()
    assert caught.value.retryable, "the next attempt may find it"
    await writer.aclose()
    assert b"secret" not in await stored(queue, "s")


async def test_a_reader_waits_out_a_key_service(queue: ChunkQueue, settings: Settings) -> None:
    """The stream is intact: earlier events are delivered now, and the rest later."""

    class Away(Xor):
        calls = 0

        async def decode(self, data: bytes) -> bytes:
            self.calls += 1
            if self.calls in (2, 3):
                raise TimeoutError("no answer")
            return await super().decode(data)

    async with open_writer("s", queue=queue, settings=settings, codec=Xor()) as writer:
        for word in ("a", "b"):
            await writer.send_chunk(word)
            await writer.flush()
    async with open_reader("s", queue=queue, settings=settings, codec=Away()) as reader:
        first = await anext(reader)
        with pytest.raises(SerializationError, match="cannot decode a record: TimeoutError: no"):
            await anext(reader)
        rest = [event async for event in reader]
    assert isinstance(first, Chunk)
    assert first.value == "a"
    assert [event.offset for event in rest] == [2, 3]


async def test_a_large_chunk_goes_through_the_codec_in_parts(
    queue: ChunkQueue, settings: Settings
) -> None:
    """Parts are encoded one by one and joined again."""
    small = load_settings(backend="memory", max_chunk_bytes=4_000_000)
    options = QueueOptions(ttl=timedelta(minutes=5))
    store = MemorySettings(store=uuid.uuid4().hex)
    data = bytes(range(256)) * 10_000
    async with await MemoryDriver.open(options, store) as memory:
        async with open_writer("s", queue=memory, settings=small, codec=Xor()) as writer:
            await writer.send_chunk(data)
        async with open_reader("s", queue=memory, settings=small, codec=Xor()) as reader:
            assert await reader.collect() == [data]


async def test_a_replay_compares_through_the_codec(queue: ChunkQueue, settings: Settings) -> None:
    """Encryption gives different bytes each time; the decoded chunks have to be compared."""
    for attempt in (1, 2):
        writer = await open_writer(
            "s",
            queue=queue,
            settings=settings,
            codec=Xor(),
            epoch=attempt,
            on_retry=OnRetry.REPLAY,
        )
        for word in ("a", "b"):
            await writer.send_chunk(word)
        await writer.flush()
        if attempt == 2:
            assert writer.statistics().replayed_chunks == 2
            await writer.finish()
        await writer.aclose()
    async with open_reader("s", queue=queue, settings=settings, codec=Xor()) as reader:
        assert await reader.collect() == ["a", "b"]


def batch(**changes: int) -> Settings:
    return load_settings(backend="memory", mode="batch", idle_seconds=5, **changes)


async def test_batch_mode_delivers_everything_at_the_end(queue: ChunkQueue) -> None:
    """Without streaming users see what they saw before: all of it, at the end."""
    writer = await open_writer("s", queue=queue, settings=batch())
    async with open_reader("s", queue=queue, settings=batch()) as reader:
        await writer.send_chunk("a")
        await writer.flush()
        await writer.send_chunk("b")
        assert await reader.read_batch(max_wait=0.05) == []
        assert (writer.position, writer.durable_position) == (2, 0)
        await writer.finish()
        assert await reader.collect() == ["a", "b"]
    await writer.aclose()


async def test_batch_mode_delivers_nothing_of_an_attempt_that_failed(queue: ChunkQueue) -> None:
    """A failed activity returns nothing; and the next attempt has nothing to void."""
    first = await open_writer("s", queue=queue, settings=batch(), epoch=1)
    await first.send_chunk("a")
    await first.aclose()
    second = await open_writer("s", queue=queue, settings=batch(), epoch=2)
    await second.send_chunk("b")
    await second.fail("broken")
    await second.aclose()
    async with open_reader("s", queue=queue, settings=batch()) as reader:
        events = [event async for event in reader]
    assert not any(isinstance(event, Chunk | Reset) for event in events)
    assert events[-1].to_dict()["state"] == "ERROR"


async def test_batch_mode_is_bounded(queue: ChunkQueue) -> None:
    """Held chunks have a limit, and the message names it: waiting for room would never end."""
    writer = await open_writer("s", queue=queue, settings=batch(batch_bytes=1_000))
    await writer.send_chunk(b"x" * 900)
    with pytest.raises(BufferFullError, match="STREAMQ_BATCH_BYTES") as caught:
        await writer.send_chunk(b"x" * 900)
    assert not caught.value.retryable, "the next attempt would meet it again"
    await writer.finish()
    assert writer.statistics().buffered_bytes == 0
    await writer.aclose()


async def test_the_bound_of_batch_mode_bounds_memory(queue: ChunkQueue) -> None:
    """Tokens are tiny: if only their bytes counted, ten times as much memory would be held."""
    writer = await open_writer("s", queue=queue, settings=batch(batch_bytes=1_000_000))
    tracemalloc.start()
    try:
        with contextlib.suppress(BufferFullError):
            while True:
                await writer.send_chunk("word")
        assert tracemalloc.get_traced_memory()[0] < 1_200_000
    finally:
        tracemalloc.stop()
    assert writer.position > 9_000
    await writer.finish()
    assert writer.statistics().buffered_bytes == 0
    await writer.aclose()


def test_an_opaque_payload_names_its_reader() -> None:
    """A value that only a data converter can decode is a clear error for readers without one."""
    chunk: Chunk = Chunk(1, 1, 0, Encoding.PAYLOAD, b"\n\x00")
    with pytest.raises(SerializationError, match="data converter"):
        _ = chunk.value
    assert chunk.to_dict()["payload"] == "CgA="
