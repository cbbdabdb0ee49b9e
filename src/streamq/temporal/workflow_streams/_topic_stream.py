"""Appends what one attempt of an activity publishes to the stream of a topic.

Design: docs/design/workflow-streams.md.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from streamq._errors import CursorError, FencedError, SealedError, StreamNotFoundError, StreamqError
from streamq._events import StreamId
from streamq._settings import Settings
from streamq.driver import ChunkQueue
from streamq.opening._open import open_writer, retry_policy
from streamq.reading._tail import read_tail
from streamq.records._codec import Codec
from streamq.records._values import Encoding
from streamq.writing._epochs import clock_epoch
from streamq.writing._policies import OnRetry
from streamq.writing._writer import StreamWriter

from ._competition import Competition
from ._story import Publisher, StoryReader, TopicStory, Value, repeated_together, repetition_headers

_logger = logging.getLogger("streamq.temporal")


@dataclass(slots=True, eq=False)
class TopicBatch:
    """Chunks that are written together, and once more if that failed.

    Attributes:
        stored: How many of them are stored.
    """

    stored: int = 0


class TopicStream:
    """Appends to a stream that the calls of a workflow share, as one attempt of one of them.

    Calls take the stream over from each other and continue it. An attempt that finds chunks of an
    earlier attempt of its call voids them: it resets the stream, and stores the chunks of the other
    calls once more. An attempt that finds chunks of a later one gives up.

    Args:
        queue: The queue; it stays open.
        settings: Limits; ``retry_seconds`` also bounds how long calls compete for the stream.
        stream: The stream.
        codec: Encodes records.
        publisher: The attempt.
        may_follow: Whether an earlier attempt may have published. If so, the stream is read before
            the first chunk is stored.
        announce: Makes the stream known before it is created.
    """

    def __init__(
        self,
        queue: ChunkQueue,
        settings: Settings,
        stream: StreamId,
        codec: Codec | None,
        publisher: Publisher,
        *,
        may_follow: bool,
        announce: Callable[[], Awaitable[None]],
    ) -> None:
        self._queue = queue
        self._settings = settings
        self._stream = stream
        self._codec = codec
        self._publisher = publisher
        self._examines = may_follow
        self._announce = announce
        self._writer: StreamWriter[Value] | None = None
        self._reader: StoryReader | None = None
        self._batch: TopicBatch | None = None
        self._count = self._before = 0  # chunks stored: of this attempt; of it, before the batch
        self._is_sealed = self._is_superseded = False

    async def write(self, batch: TopicBatch, values: Sequence[Value]) -> None:
        """Store chunks in order, as durably as the backend stores; a repeat is stored once.

        After an error the same batch can be written again, also after other batches.

        Args:
            batch: Identifies the batch. A repeat of it has the same one.
            values: The chunks.

        Raises:
            FencedError: A later attempt publishes.
            ThrottledError: Other calls took the stream over repeatedly.
            CapabilityError: The backend does not fence.
            ChunkTooLargeError: A chunk is too large.
            BackendUnavailableError: The backend stayed unreachable.
        """
        competition = Competition(self._stream, self._settings.retry_seconds)
        while not self._is_sealed:
            try:
                writer = self._writer or await self._take_over()
                if writer is None:
                    return
                self._begin(batch)
                rest = values[batch.stored :]
                for value in rest:
                    await writer.send_chunk(value)
                await writer.flush()
                self._count += len(rest)
                batch.stored = len(values)
                return
            except FencedError as exc:
                await self._abandon()
                if self._is_superseded:
                    raise
                fenced = exc
            except BaseException:
                await self._abandon()  # its buffered records must not be sent after this
                raise
            await competition.wait(fenced)

    async def aclose(self) -> None:
        """Close the writer; the stream is not ended."""
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(StreamqError):
                await writer.aclose()

    async def _abandon(self) -> None:
        """Close the writer, and read the next time what has been stored."""
        self._examines = True
        await self.aclose()

    def _begin(self, batch: TopicBatch) -> None:
        """Make a batch the one whose chunks are counted."""
        if batch is self._batch:
            return
        # The first batch may repeat what an earlier attempt has stored in the same name.
        self._before = 0 if self._batch is None else self._count - batch.stored
        self._batch = batch
        batch.stored = self._count - self._before

    def _set_count(self, count: int) -> None:
        """Take from the stream how many chunks are stored: what was in flight may have been."""
        self._count, self._before = count, min(self._before, count)
        if self._batch is not None:
            self._batch.stored = count - self._before

    async def _take_over(self) -> StreamWriter[Value] | None:
        newest = 0
        try:
            retry = retry_policy(self._settings, self._queue, self._stream)
            tail = await read_tail(self._queue, self._stream, retry)
            newest = tail.state.epoch
            if self._examines:
                # Before the opening: the others are not kept from writing for as long as it takes.
                newest = max(newest, (await self._read_on(position=tail.position)).epoch)
        except StreamNotFoundError:
            self._reader = None
            await self._announce()
        epochs = count(clock_epoch(newest))
        try:
            epoch = next(epochs)
            writer = await self._open(epoch, self._publisher.headers())
            if self._examines:
                reader = self._reader
                if reader is None or reader.next_seq != writer.resumed_from:
                    reader = await self._read_on(epoch=epoch)
                await self._continue_story(reader.story, epochs)
        except SealedError as exc:
            # The workflow had ended, and was reset since. Readers have had their ending.
            _logger.warning("%s; readers get nothing of what is published from now on", exc)
            self._is_sealed = True
            return None
        return self._writer

    async def _read_on(
        self, *, epoch: int | None = None, position: str | None = None
    ) -> StoryReader:
        """Read what has been stored since the last time, up to an opening or a position."""
        reader, self._reader = self._reader or self._new_reader(), None
        try:
            is_there = await reader.advance(epoch=epoch, position=position)
        except CursorError:
            is_there = False
        if not is_there:  # the stream was deleted, and began again
            reader = self._new_reader()
            await reader.advance(epoch=epoch, position=position)
        self._reader = reader  # not after an error: it may have taken a part of a record
        return reader

    def _new_reader(self) -> StoryReader:
        retry = retry_policy(self._settings, self._queue, self._stream)
        return StoryReader(self._queue, self._stream, retry, self._codec)

    async def _continue_story(self, story: TopicStory, epochs: count[int]) -> None:
        """Void what earlier attempts of this call sent, and count what this one has sent.

        The writer that is open keeps others from appending in the meantime.
        """
        me = self._publisher
        passages = story.passages
        publishers = [each.publisher for each in passages]
        if any(each is not None and each.supersedes(me) for each in publishers):
            self._is_superseded = True
            raise FencedError(
                f"a later attempt publishes to stream {self._stream}; this one must stop",
                backend=self._queue.backend,
                stream=str(self._stream),
            )
        kept = [each for each in passages if not me.supersedes(each.publisher)]
        self._set_count(sum(len(each.values) for each in kept if each.publisher == me))
        if len(kept) < len(passages) or story.is_broken:
            repeated = repeated_together(kept)
            headers = {**me.headers(), **repetition_headers(repeated)}
            writer = await self._open(next(epochs), headers, OnRetry.RESTART)
            for passage in repeated:
                for value in passage.values:
                    await writer.send_chunk(value)
        self._examines = False

    async def _open(
        self, epoch: int, headers: Mapping[str, str], policy: OnRetry = OnRetry.RESUME
    ) -> StreamWriter[Value]:
        await self.aclose()
        self._writer = await open_writer(
            self._stream,
            queue=self._queue,
            settings=self._settings,
            epoch=epoch,
            on_retry=policy,
            serializer=_AsStored(),
            codec=self._codec,
            headers=headers,
            seals_failures=False,
            # Without that a fenced publisher would notice it only after its flush.
            require=["fenced"],
        )
        return self._writer


class _AsStored:
    """Takes values that are encoded already."""

    def encode(self, value: Value) -> Value:
        return value

    def decode(self, encoding: Encoding, data: bytes) -> Value:
        return encoding, data
