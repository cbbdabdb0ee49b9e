"""Reads the last attempt of a stream as it is stored at one moment, within a bound on memory.

Design: docs/design/reading.md.
"""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Generic, Literal, TypeAlias

from streamq._errors import IdleTimeoutError, SerializationError, StoryTooLargeError, TrimmedError
from streamq._events import Chunk, Event, Gap, Reset, Seal, StreamId
from streamq.records._values import Encoding, T, TCo

from ._reader import StreamReader
from ._tail import StreamStatus

CHUNK_COST_BYTES = 100
"""Bytes that a chunk takes in memory beside its data, for the bound of a story."""

DEFAULT_STORY_BYTES = 67_108_864
"""Most bytes of a story unless the caller says another number."""

_TURN_EVENTS = 1_000

StoryState: TypeAlias = Literal["OPEN", "END", "ERROR", "CANCELLED"]
"""How a stream stands: OPEN, or how it ended."""


@dataclass(frozen=True, slots=True)
class Story(Generic[TCo]):
    """The last attempt of a stream, as it was stored at one moment.

    Attributes:
        stream: Which stream.
        chunks: The chunks that no reset has voided, in order.
        seal: The ending; ``None`` while the stream is open.
        attempt: The newest attempt that was opened; 0 if the stream does not exist.
        offset: Offset of the newest event at that moment, 0 if there was none.
        gaps: What is no longer stored among the chunks, if ``gaps_as_events`` asked for it.
        cursor: Token of the place after the newest event: ``open_reader(from_=story.cursor)`` goes
            on live, without loss or repetition. Of a stream that has ended it delivers the ending.
    """

    stream: StreamId
    chunks: tuple[Chunk[TCo], ...]
    seal: Seal | None
    attempt: int
    offset: int
    gaps: tuple[Gap, ...]
    cursor: str

    @property
    def state(self) -> StoryState:
        """OPEN, or how the stream ended: END, ERROR or CANCELLED.

        OPEN says that nothing has ended the stream, not that its producer runs.
        """
        match self.seal.state.name if self.seal is not None else "OPEN":
            case "END":
                return "END"
            case "ERROR":
                return "ERROR"
            case "CANCELLED":
                return "CANCELLED"
            case _:
                return "OPEN"

    @property
    def values(self) -> list[TCo]:
        """The values of the chunks, decoded on each access.

        Raises:
            SerializationError: One of them cannot be decoded; :attr:`chunks` has the others.
        """
        return [chunk.value for chunk in self.chunks]

    @property
    def text(self) -> str:
        """The chunks as one text, joined on each access. Bytes count as UTF-8 across chunks.

        Of an open stream, a character whose last bytes have not come yet is left out.

        Raises:
            SerializationError: A value is neither text nor bytes in UTF-8, or cannot be decoded.
        """
        decoder = codecs.getincrementaldecoder("utf-8")()
        parts: list[str] = []
        try:
            for chunk in self.chunks:
                if chunk.encoding is Encoding.TEXT:
                    parts.append(decoder.decode(chunk.data))
                    continue
                value: object = chunk.value
                if not isinstance(value, str | bytes):
                    raise SerializationError(
                        f"event {chunk.offset} of stream {self.stream} is a value of type "
                        f"{type(value).__name__}, not text; use values or chunks",
                        stream=str(self.stream),
                    )
                data = value.encode("utf-8", "replace") if isinstance(value, str) else value
                parts.append(decoder.decode(data))
            parts.append(decoder.decode(b"", final=self.seal is not None))
        except UnicodeDecodeError as exc:
            raise SerializationError(
                f"the bytes of stream {self.stream} are not text in UTF-8; use values or chunks",
                stream=str(self.stream),
            ) from exc
        return "".join(parts)


def no_story(stream: StreamId, cursor: str) -> Story[T]:
    """Return the story of a stream that does not exist."""
    return Story(stream, (), None, 0, 0, (), cursor)


async def find_last_attempt(
    reader: StreamReader[T, Gap], status: StreamStatus, *, patience_seconds: float
) -> str:
    """Return the cursor after the last reset up to the newest event of a status.

    Without a reset it is the place where the reader begins.

    Args:
        reader: A reader at the beginning of the stream that delivers gaps.
        status: Where the stream stood.
        patience_seconds: How long to wait for an event that the status promises.

    Raises:
        StreamqError: As for :func:`collect_story`.
    """
    found = reader.cursor
    if status.attempt <= 1:
        return found
    async with aclosing(_batches(reader, status.offset, 1, patience_seconds)) as batches:
        async for batch in batches:
            if isinstance(batch[0], Reset):
                found = reader.cursor
                if batch[0].attempt == status.attempt:
                    break
    return found


async def _batches(
    reader: StreamReader[T, Gap], newest: int, max_events: int, patience_seconds: float
) -> AsyncGenerator[list[Event[T] | Gap], None]:
    """Yield the events up to the newest one of a moment.

    Raises:
        IdleTimeoutError: It does not come.
        StreamqError: As for :meth:`StreamReader.read_batch`.
    """
    count = 0
    while reader.offset < newest and reader.seal is None:
        batch = await reader.read_batch(
            max_events=min(newest - reader.offset, max_events), max_wait=patience_seconds
        )
        if not batch:
            raise IdleTimeoutError(
                f"stream {reader.stream} had {newest} events, and only {reader.offset} of them can "
                "be read: it was deleted or has expired since, and began again under its name, "
                "perhaps; read it again",
                stream=str(reader.stream),
            )
        yield batch
        count += len(batch)
        if count >= _TURN_EVENTS:  # what is read ahead needs no wait: others get their turn
            count = 0
            await asyncio.sleep(0)


async def collect_story(
    reader: StreamReader[T, Gap],
    status: StreamStatus,
    *,
    max_bytes: int,
    gaps_as_events: bool,
    patience_seconds: float,
) -> Story[T]:
    """Read from the beginning to the newest event of a status, and keep the last attempt only.

    Args:
        reader: A reader at the beginning of the stream that delivers gaps.
        status: Where the stream stood.
        max_bytes: Bound of the chunks that are kept.
        gaps_as_events: Whether missing events are accepted.
        patience_seconds: How long to wait for an event that the status promises.

    Raises:
        StoryTooLargeError: The last attempt is larger.
        TrimmedError: Some of its events are no longer stored, and this is not accepted.
        IdleTimeoutError: The stream has fewer events than the status says.
        StreamqError: As for :meth:`StreamReader.read_batch`.
    """
    chunks: list[Chunk[T]] = []
    gaps: list[Gap] = []
    size = 0
    async with aclosing(_batches(reader, status.offset, 1_000, patience_seconds)) as batches:
        async for batch in batches:
            for event in batch:
                if isinstance(event, Reset):
                    chunks, gaps, size = [], [], 0
                elif isinstance(event, Gap):
                    gaps.append(event)
                elif isinstance(event, Chunk):
                    size += len(event.data) + CHUNK_COST_BYTES
                    chunks.append(event)
            if size > max_bytes:
                chunks = []  # a later reset may make them void; they need no memory meanwhile
                if batch[-1].attempt >= status.attempt:
                    break
    if size > max_bytes:
        raise StoryTooLargeError(
            f"the last attempt of stream {reader.stream} has more than {max_bytes:,} bytes, "
            f"counting {CHUNK_COST_BYTES} more for each chunk; read it with open_reader, event "
            "by event, or permit more with max_bytes=",
            stream=str(reader.stream),
        )
    if gaps and not gaps_as_events:
        oldest = gaps[-1].offset + 1
        raise TrimmedError(
            f"events {gaps[0].first} to {gaps[-1].offset} of stream {reader.stream} are no longer "
            "stored; gaps_as_events=True reads what is left",
            oldest=oldest,
            stream=str(reader.stream),
        )
    return Story(
        reader.stream,
        tuple(chunks),
        reader.seal,
        status.attempt,
        reader.offset,
        tuple(gaps),
        reader.cursor,
    )
