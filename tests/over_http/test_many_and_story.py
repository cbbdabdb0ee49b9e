"""Many streams in one loop, and the final story, through a gateway."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest

from streamq import (
    Chunk,
    ConfigurationError,
    Seal,
    Settings,
    load_settings,
    open_gateway,
    open_queue,
    open_readers,
    open_writer,
    read_story,
)
from streamq.driver import ChunkQueue
from streamq.gateway import GatewayServer, create_app, serve


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("STREAMQ_MEMORY_STORE", uuid.uuid4().hex)
    return load_settings(backend="memory", idle_seconds=10)


@pytest.fixture
async def stored(settings: Settings) -> AsyncIterator[ChunkQueue]:
    """A backend with two streams below a prefix."""
    async with open_queue(settings) as queue:
        for name in ("chat/1", "chat/2"):
            async with open_writer(name, queue=queue, settings=settings) as writer:
                await writer.send_chunk(f"of {name}")
        yield queue


@pytest.fixture
async def gateway(stored: ChunkQueue, settings: Settings) -> AsyncIterator[GatewayServer]:
    async with serve(create_app(stored, settings)) as server:
        yield server


async def test_streams_of_a_gateway_are_read_in_one_loop(
    gateway: GatewayServer, settings: Settings
) -> None:
    """A program without credentials of the backend reads a chat, by names, prefix or address."""
    async with open_gateway(gateway.url, settings=settings) as queue:
        for names, prefixes in ((["chat/1", "chat/2"], ()), ([], ("chat/",))):
            found: dict[str, object] = {}
            async with open_readers(
                names, prefixes=prefixes, queue=queue, settings=settings
            ) as readers:
                ended = 0
                while ended < 2:
                    item = await anext(readers)
                    if isinstance(item.event, Chunk):
                        found[item.stream.name] = item.event.value
                    ended += isinstance(item.event, Seal)
            assert found == {"chat/1": "of chat/1", "chat/2": "of chat/2"}
    addresses = [f"{gateway.url}/events/chat/{number}" for number in (1, 2)]
    async with open_readers(addresses, settings=settings) as readers:
        items = [item async for item in readers]
    assert sum(isinstance(item.event, Seal) for item in items) == 2
    with pytest.raises(ConfigurationError, match="is not on the gateway"):
        await open_readers([addresses[0], "http://127.0.0.1:1/events/a"], settings=settings)


async def test_story_of_a_gateway_by_its_address(
    gateway: GatewayServer, settings: Settings
) -> None:
    """The text of an answer in one line, from anywhere."""
    story = await read_story(f"{gateway.url}/events/chat/1", settings=settings)
    assert (story.text, story.state) == ("of chat/1", "END")
