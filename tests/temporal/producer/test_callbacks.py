"""Tests callbacks that send chunks from a streaming activity without awaiting, on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter
from tests.temporal.support.fixture_types import Run, Start
from tests.temporal.support.reading import outline, read_all

from streamq import Encoding, Settings, StreamWriter
from streamq.driver import ChunkQueue
from streamq.temporal import streaming_activity
from streamq.temporal._serializer import conversion

TOKENS = [f"token {i}" for i in range(50)]


def generate(on_token: Callable[[str], object]) -> None:
    """Call back as a library does that knows nothing of asyncio."""
    for token in TOKENS:
        on_token(token)


@streaming_activity
async def nowait(stream: StreamWriter[str]) -> None:
    generate(stream.send_nowait)


@streaming_activity
async def nowait_in_a_thread(stream: StreamWriter[str]) -> None:
    await asyncio.to_thread(generate, stream.send_nowait)


@streaming_activity
async def forgotten(stream: StreamWriter[str]) -> None:
    generate(stream.send_chunk)


@streaming_activity
async def tasks(stream: StreamWriter[str]) -> None:
    under_way: set[asyncio.Task[None]] = set()
    generate(lambda token: under_way.add(asyncio.create_task(stream.send_chunk(token))))


@pytest.mark.parametrize("activity", [nowait, nowait_in_a_thread, forgotten, tasks])
async def test_every_chunk_of_a_callback_is_in_before_the_seal(
    run_worker: Run,
    start: Start,
    client: Client,
    queue: ChunkQueue,
    settings: Settings,
    activity: Callable[[StreamWriter[str]], object],
) -> None:
    """The function returns at once, while nothing was sent yet; its stream must be complete."""
    async with run_worker(activity):
        handle = await start(activity.__name__)
        events = await read_all(handle, queue, settings)
        await handle.result()
    assert outline(events) == [*TOKENS, "END"]


@pytest.mark.parametrize("converter", [DataConverter.default, pydantic_data_converter])
@pytest.mark.parametrize("chunk", [b"\xff\x00", bytearray(b"\xff\x00"), memoryview(b"\xff\x00")])
def test_every_kind_of_bytes_is_a_chunk_of_bytes(converter: DataConverter, chunk: object) -> None:
    """Libraries hand over the buffers that they read into."""
    for is_transparent in (True, False):
        serializer, _ = conversion(converter, "w/r/default", "default")
        serializer._is_transparent = is_transparent  # type: ignore[attr-defined]
        encoding, data = serializer.encode(chunk)
        assert (encoding, data) == (Encoding.BYTES, b"\xff\x00")
        assert serializer.decode(encoding, data) == b"\xff\x00"
