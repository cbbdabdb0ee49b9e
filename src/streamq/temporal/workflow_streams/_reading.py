"""Reads a workflow's log until the workflow has ended: each item once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from temporalio.converter import PayloadCodec

from streamq._events import Chunk, EventOrGap, Gap
from streamq.reading._reader import StreamReader
from streamq.temporal._closing import ClosingWatch

from ._items import Numbered

_WAIT_SECONDS = 5.0


async def read_items(
    reader: StreamReader[Any, Gap],
    closing: ClosingWatch,
    closed: asyncio.Task[str],
    codec: PayloadCodec | None,
    *,
    patience_seconds: float,
) -> AsyncGenerator[tuple[int, Numbered]]:
    """Yield the items of a log with their offsets from 0, without those that are stored twice.

    Args:
        reader: Reads the log.
        closing: Watches the workflow.
        closed: Ends with the workflow.
        codec: Decodes items.
        patience_seconds: Raise if neither an item nor an answer of Temporal comes for this long.

    Raises:
        StreamqError: The log cannot be read, or Temporal could not be queried.
    """
    seen: dict[str, int] = {}
    quiet_since = time.monotonic()
    while True:
        has_ended = closed.done()
        events = await _next_events(reader, closed, min(_WAIT_SECONDS, patience_seconds))
        for event in events:
            if not isinstance(event, Chunk):
                continue
            item = await Numbered.decode(event.data, codec)
            if item.number > seen.get(item.publisher, 0):
                seen[item.publisher] = item.number
                yield event.offset - 1, item
        if events:
            quiet_since = time.monotonic()
        elif has_ended:
            closed.result()  # raises the error that ended the watch in place of the workflow
            return
        elif time.monotonic() >= closing.silence_ends(quiet_since, patience_seconds):
            raise closing.silence(str(reader.stream), patience_seconds) from closing.failure


async def _next_events(
    reader: StreamReader[Any, Gap], closed: asyncio.Task[str], seconds: float
) -> Sequence[EventOrGap]:
    """Return the next events; none if the workflow ended in the meantime, or none came."""
    if closed.done():
        return await reader.read_batch(max_wait=0)
    reading = asyncio.ensure_future(reader.read_batch(max_wait=seconds))
    try:
        await asyncio.wait({reading, closed}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if not reading.done():
            reading.cancel()
            await asyncio.wait({reading})
    return [] if reading.cancelled() else reading.result()
