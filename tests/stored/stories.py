"""Writes streams of every kind through the public interface, and reads them."""

from __future__ import annotations

import asyncio
import itertools
import zlib
from collections.abc import Iterable
from typing import Any

from streamq import (
    Gap,
    OnRetry,
    Settings,
    StreamReader,
    StreamWriter,
    load_settings,
    open_reader,
    open_writer,
)
from streamq.driver import ChunkQueue, StreamId

YEARS = 10 * 365 * 86_400.0
"""The longest time to live, in seconds: what is kept must not expire before it is read."""

FIRST_EPOCH = 1_700_000_000_000_000

NAMES = (
    "space\u3000between",
    "line\nfeed",
    "100%41",
    "a/../b",
    "{brace}:*?[x]^-",
    "\U0001f600 \u202eright to left",
    " edges ",
    "\xe4" * 500,
)
"""Names that each backend has to escape or digest in some way."""


class Flipping:
    """A codec that flips every bit."""

    async def encode(self, data: bytes) -> bytes:
        return bytes(byte ^ 255 for byte in data)

    async def decode(self, data: bytes) -> bytes:
        return bytes(byte ^ 255 for byte in data)


class Writing:
    """Opens writers with epochs of their own, so that two runs store the same.

    Args:
        queue: Where to write.
        epoch: Epoch of the first attempt.
    """

    def __init__(self, queue: ChunkQueue, epoch: int = FIRST_EPOCH) -> None:
        self.queue = queue
        self._epochs = itertools.count(epoch)

    async def open(self, name: str, *, tenant: str = "stored", **options: Any) -> StreamWriter:
        """Open the next attempt of a stream."""
        return await open_writer(
            StreamId(tenant, name),
            queue=self.queue,
            settings=settings(self.queue.backend),
            epoch=next(self._epochs),
            producer="kept/producer",
            **options,
        )

    async def send(self, name: str, *values: Any, seals: bool = True, **options: Any) -> None:
        """Write values, each flushed, in one attempt."""
        writer = await self.open(name, **options)
        for value in values:
            await writer.send_chunk(value)
            await writer.flush()
        await (writer.finish() if seals else writer.aclose())


def settings(backend: str) -> Settings:
    """Return settings under which nothing expires."""
    return load_settings(
        backend=backend,
        ttl_seconds=YEARS,
        sealed_ttl_seconds=YEARS,
        idle_seconds=30,
        retry_seconds=30,
    )


async def write_all(queue: ChunkQueue) -> None:
    """Write a stream of every kind that the backend can keep."""
    write = Writing(queue)
    await write.send("text", "plain ", "\xe4\u3000\U0001f600", "", "x" * 3_000)
    packed = await write.open("packed")
    for number in range(300):
        await packed.send_chunk(f"{number} ")
    await packed.finish()
    await write.send("bytes", b"\x00\xff", b"", bytes(range(256)))
    await write.send("json", {"a": [1, 2.5, None, True], "\xe4": "\u2028"}, [], 7, None, "text")
    await write.send("codec", "secret", {"k": 1}, b"\x01", codec=Flipping())
    await write.send("headers", "a", headers={"traceparent": "00-1-2-01", "\xe4": "b"})
    await write.send("open", "a", "b", seals=False)
    await write.send("reset", "draft", "draft 2", seals=False)
    await write.send("reset", "final")
    await write.send("reset twice", "1", seals=False)
    await write.send("reset twice", seals=False)
    await write.send("reset twice", "3")
    failing = await write.open("error", seals_failures=True)
    try:
        async with failing:
            await failing.send_chunk("before")
            raise RuntimeError("no \xe4nswer")
    except RuntimeError:
        pass
    await _cancel(await write.open("cancelled"))
    await write.send("other tenant", "theirs", tenant="another.tenant")
    if queue.capabilities.replay:
        await write.send("resumed", "1", "2", seals=False)
        await write.send("resumed", "3", on_retry=OnRetry.RESUME)
        await write.send("large", "small", "\xe4" * 450_000, b"l" * 900_000, "after")
    for name in NAMES:
        await write.send(name, "named")


async def _cancel(writer: StreamWriter) -> None:
    async def produce() -> None:
        async with writer:
            await writer.send_chunk("before")
            await writer.flush()
            begun.set()
            await asyncio.Event().wait()

    begun = asyncio.Event()
    producing = asyncio.create_task(produce())
    await begun.wait()
    producing.cancel()
    await asyncio.gather(producing, return_exceptions=True)


Outline = dict[str, Any]
"""What a reader got of one stream, as JSON."""


async def read_stream(queue: ChunkQueue, stream: StreamId) -> Outline:
    """Read what is stored of a stream; return its events, and the cursor after each of them.

    A value of more than 1,000 characters or bytes is replaced by its length and checksum.
    """
    reader: StreamReader[Any, Gap] = await open_reader(
        stream,
        queue=queue,
        settings=settings(queue.backend),
        gaps_as_events=True,
        codec=Flipping() if stream.name == "codec" else None,
    )
    events, cursors = [], []
    async with reader:
        wait = 0.0 if queue.capabilities.replay else 3.0
        while batch := await reader.read_batch(max_events=1, max_wait=wait):
            events.append(_short(batch[0].to_dict()))
            cursors.append(reader.cursor)
    return {
        "tenant": stream.tenant,
        "name": stream.name,
        "events": events,
        "cursors": cursors if len(cursors) < 50 else cursors[::50],
        "headers": dict(reader.headers),
    }


def _short(event: dict[str, Any]) -> dict[str, Any]:
    for field in ("value", "base64"):
        value = event.get(field)
        if isinstance(value, str) and len(value) > 1_000:
            event[field] = [len(value), zlib.crc32(value.encode())]
    return event


async def names(queue: ChunkQueue, tenants: Iterable[str]) -> list[StreamId]:
    """Return the streams of tenants, in order."""
    found = [info.stream for tenant in tenants async for info in queue.streams(tenant)]
    return sorted(found, key=lambda stream: stream.full_name)


async def read_all(queue: ChunkQueue) -> list[Outline]:
    """Read every stream."""
    return [await read_stream(queue, stream) for stream in await names(queue, TENANTS)]


TENANTS = ("stored", "another.tenant")
