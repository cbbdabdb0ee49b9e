"""Headers of an attempt reach every reader that reads its opening."""

from __future__ import annotations

import pytest

from streamq import ConfigurationError, Settings, open_reader, open_writer
from streamq.driver import ChunkQueue
from streamq.opening._opening_record import MAX_HEADER_BYTES

TRACE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}


async def test_readers_find_the_headers_of_the_newest_attempt(
    queue: ChunkQueue, settings: Settings
) -> None:
    """A trace across the queue must be that of the attempt whose chunks are read."""
    first = await open_writer("s", queue=queue, settings=settings, headers=TRACE)
    await first.send_chunk("a")
    await first.flush()
    reader = await open_reader("s", queue=queue, settings=settings)
    assert not reader.headers
    await anext(reader)
    assert reader.headers == TRACE
    await first.aclose()
    async with open_writer("s", queue=queue, settings=settings) as second:
        await second.send_chunk("b")
    assert [event async for event in reader]
    assert not reader.headers


async def test_headers_that_do_not_fit_are_refused_before_anything_is_stored(
    queue: ChunkQueue, settings: Settings
) -> None:
    """A backend would refuse a large opening record, with a message that does not help."""
    fits = {"x": "y" * (MAX_HEADER_BYTES - 5)}
    with pytest.raises(ConfigurationError, match="headers take 3001 bytes"):
        await open_writer("s", queue=queue, settings=settings, headers={"x": fits["x"] + "y"})
    async with open_writer("s", queue=queue, settings=settings, headers=fits) as stream:
        await stream.send_chunk("a")
