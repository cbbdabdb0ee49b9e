"""Stores what one attempt of an activity publishes: in the log, and in a stream for each topic.

Design: docs/design/workflow-streams.md.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from temporalio import activity
from temporalio.api.common.v1 import Payload

from streamq._errors import ConfigurationError
from streamq._events import StreamId
from streamq.driver import close_all
from streamq.temporal._names import check_topic
from streamq.temporal._serializer import encode_payload
from streamq.temporal.activities._context import ActivityContext
from streamq.temporal.activities._epoch import attempt_epoch
from streamq.temporal.producer._opening import stream_of_attempt

from ._items import TOPIC, TOPICS, Numbered
from ._protocol import PublishedBatch
from ._shared_log import SharedLog
from ._story import Publisher
from ._topic_stream import TopicBatch, TopicStream

_CALL_BYTES = 12


class Publication:
    """Stores the items of one attempt of an activity.

    Args:
        context: Context of the running activity.
        info: The attempt.
        call: Identifies what is published, if a repeat of it is another attempt that publishes the
            same; by default the call of the activity, whose attempts publish each their own.
        may_repeat: With ``call``, whether some of it may be stored.
    """

    def __init__(
        self,
        context: ActivityContext,
        info: activity.Info,
        *,
        call: str | None = None,
        may_repeat: bool = False,
    ) -> None:
        origin = context.origin
        run_id = origin.original_run_id if origin else info.workflow_run_id
        workflow_attempt = origin.workflow_attempt if origin else 1
        self._name = call or f"{run_id}/{info.activity_id}"
        self._context = context
        self._info = info
        self._publisher = Publisher(
            hashlib.sha256(self._name.encode()).hexdigest()[: 2 * _CALL_BYTES],
            0 if call else attempt_epoch(info),
            workflow_attempt,
        )
        self._may_follow = (
            may_repeat
            or info.attempt > 1
            or workflow_attempt > 1
            or run_id != info.workflow_run_id  # the workflow was reset
        )
        self._lock = asyncio.Lock()
        self._log: SharedLog | None = None
        self._streams: dict[str, TopicStream] = {}
        self._batches: dict[str, _Placed] = {}
        self._is_closed = False

    def takes(self, workflow_id: str, run_id: str | None) -> bool:
        """Whether it stores what is published to a workflow: to that which made the call."""
        info = self._info
        return (
            not self._is_closed
            and workflow_id == info.workflow_id
            and run_id in (None, "", info.workflow_run_id)
        )

    async def write_batch(self, given: PublishedBatch) -> None:
        """Store a batch of a publisher in the activity; a repeat of it is stored once.

        Raises:
            ConfigurationError: A topic is not usable.
            StreamqError: The backend refuses it, or stayed unreachable.
        """
        async with self._lock:
            placed = self._batches.get(given.publisher)
            if placed is None or not given.publisher or given.sequence > placed.batch.sequence:
                number = placed.number + len(placed.batch.items) if placed else 1
                placed = self._batches[given.publisher] = _Placed(given, number)
            elif given.sequence < placed.batch.sequence:
                return
            await self._write_topics(given.items, placed.batches)
            await self._write_log(given.publisher or self._name, placed.number, given.items)

    async def write_items(
        self, publisher: str, first: int, items: Sequence[tuple[str, Payload]], *, topics: bool
    ) -> None:
        """Store the items of a workflow; those that are stored already are left out.

        Args:
            publisher: Their publisher.
            first: Number of the first item.
            items: Topics and payloads.
            topics: Whether each topic is a stream of its own as well.

        Raises:
            ConfigurationError: A topic is not usable.
            StreamqError: The backend refuses it, or stayed unreachable.
        """
        async with self._lock:
            if topics:
                await self._write_topics(items, defaultdict(TopicBatch))
            await self._write_log(publisher, first, items)

    async def aclose(self) -> None:
        """Close all writers; no stream is ended."""
        self._is_closed = True
        await close_all(self._close)

    async def _close(self) -> None:
        async with self._lock:
            closing = [each.aclose for each in self._streams.values()]
            if self._log is not None:
                closing.append(self._log.aclose)
            await close_all(*closing)

    async def _write_topics(
        self, items: Sequence[tuple[str, Payload]], batches: defaultdict[str, TopicBatch]
    ) -> None:
        topics: dict[str, list[Payload]] = defaultdict(list)
        for topic, payload in items:
            topics[topic].append(payload)
        for topic, payloads in topics.items():
            stream = self._streams.get(topic) or await self._open(topic)
            await stream.write(batches[topic], [encode_payload(each) for each in payloads])

    async def _write_log(
        self, publisher: str, first: int, items: Sequence[tuple[str, Payload]]
    ) -> None:
        context = self._context
        if self._log is None:
            base = await self._stream_of(TOPIC)
            self._log = SharedLog(context.queue, context.settings, base.name)
        codec = context.client.data_converter.payload_codec
        numbered = (
            Numbered(topic, payload, publisher, number)
            for number, (topic, payload) in enumerate(items, first)
        )
        await self._log.write([await each.encode(codec) for each in numbered])

    async def _open(self, topic: str) -> TopicStream:
        if check_topic(topic) in (TOPIC, TOPICS):
            raise ConfigurationError(
                f"topic {topic!r} is streamq's own; publish to a topic of another name"
            )
        context, stream = self._context, await self._stream_of(topic)
        registry = await self._stream_of(TOPICS)

        async def announce() -> None:
            log = SharedLog(context.queue, context.settings, registry.name)
            try:
                await log.write([topic.encode()])
            finally:
                await log.aclose()

        self._streams[topic] = TopicStream(
            context.queue,
            context.settings,
            stream,
            context.codec(stream),
            self._publisher,
            may_follow=self._may_follow,
            announce=announce,
        )
        return self._streams[topic]

    async def _stream_of(self, topic: str) -> StreamId:
        return await stream_of_attempt(self._context, self._info, topic)


@dataclass(frozen=True, slots=True)
class _Placed:
    """The newest batch of a publisher, and its place.

    Attributes:
        batch: The batch.
        number: Number of its first item.
        batches: How many of its items are stored in the stream of each topic.
    """

    batch: PublishedBatch
    number: int
    batches: defaultdict[str, TopicBatch] = field(default_factory=lambda: defaultdict(TopicBatch))


publishing: ContextVar[Publication | None] = ContextVar("streamq_publishing", default=None)
"""What the running activity publishes, on a worker that routes Workflow Streams."""


@asynccontextmanager
async def publishing_activity(context: ActivityContext, info: activity.Info) -> AsyncIterator[None]:
    """Store, within the block, what the running activity publishes to its workflow."""
    publication = Publication(context, info)
    token = publishing.set(publication)
    try:
        yield
    finally:
        publishing.reset(token)
        await close_all(publication.aclose)
