"""Appends what one attempt of an activity publishes to the stream of a topic.

Design: docs/design/workflow-streams.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import count

from streamq._errors import FencedError, SealedError, StreamNotFoundError, StreamqError
from streamq._events import StreamId
from streamq._settings import Settings
from streamq.driver import ChunkQueue
from streamq.opening._open import open_writer, retry_policy
from streamq.reading._tail import newest_epoch
from streamq.records._codec import Codec
from streamq.records._values import Encoding
from streamq.writing._policies import OnRetry
from streamq.writing._writer import StreamWriter

from ._story import Publisher, Value, read_story, repeated_together, repetition_headers

_LONGEST_PAUSE_SECONDS = 0.1

_logger = logging.getLogger("streamq.temporal")


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
        self._stored = 0
        self._is_sealed = self._is_superseded = False

    async def write(self, first: int, values: Sequence[Value]) -> None:
        """Store chunks in order, as durably as the backend stores; a repeat is stored once.

        Args:
            first: How many chunks this publisher sent before these.
            values: The chunks.

        Raises:
            FencedError: A later attempt publishes, or other calls took the stream over repeatedly.
            CapabilityError: The backend does not fence.
            ChunkTooLargeError: A chunk is too large.
            BackendUnavailableError: The backend stayed unreachable.
        """
        until = time.monotonic() + self._settings.retry_seconds
        pause = 0.005
        while not self._is_sealed:
            try:
                writer = self._writer or await self._take_over()
                if writer is None:
                    return
                for value in values[max(0, self._stored - first) :]:
                    await writer.send_chunk(value)
                await writer.flush()
                self._stored = max(self._stored, first + len(values))
                return
            except FencedError:
                await self._abandon()
                if self._is_superseded or time.monotonic() > until:
                    raise
            except BaseException:
                await self._abandon()  # its buffered records must not be sent after this
                raise
            await asyncio.sleep(random.uniform(0, pause))
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

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

    async def _take_over(self) -> StreamWriter[Value] | None:
        newest = 0
        try:
            retry = retry_policy(self._settings, self._queue, self._stream)
            newest = await newest_epoch(self._queue, self._stream, retry)
        except StreamNotFoundError:
            await self._announce()
        # As in the shared log: the time, or more if another publisher's clock is ahead.
        epochs = count(max(time.time_ns() // 1_000, newest + 1))
        try:
            await self._open(next(epochs), self._publisher.headers())
            if self._examines:
                await self._continue_story(epochs)
        except SealedError as exc:
            # The workflow had ended, and was reset since. Readers have had their ending.
            _logger.warning("%s; readers get nothing of what is published from now on", exc)
            self._is_sealed = True
            return None
        return self._writer

    async def _continue_story(self, epochs: count[int]) -> None:
        """Void what earlier attempts of this call sent, and count what this one has sent.

        The writer that is open keeps everyone else from appending in the meantime.
        """
        me = self._publisher
        retry = retry_policy(self._settings, self._queue, self._stream)
        story = await read_story(self._queue, self._stream, retry, self._codec)
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
        self._stored = sum(len(each.values) for each in kept if each.publisher == me)
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
