"""Reads several topics of a workflow or standalone activity in one iteration, to the end of each.

Design: docs/design/temporal-reading.md.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Literal, Self

from temporalio.client import ActivityHandle, Client, WorkflowHandle

from streamq._errors import ClosedError, ConfigurationError, StreamNotFoundError, StreamqError
from streamq._events import Chunk, Reset, Seal, StreamId
from streamq._settings import Settings, load_settings
from streamq.calling import _calls as calling
from streamq.driver import ChunkQueue, close_all
from streamq.opening._open import open_queue, stream_id
from streamq.opening._open_readers import begin_readers
from streamq.reading._readers import StreamReaders
from streamq.reading._stream_event import ReadFailure, StreamFound
from streamq.records._values import T, TCo

from ._names import check_topic
from ._serializer import conversion
from ._targets import Target, target_of
from ._until_closed import GRACE_SECONDS, START_SECONDS, UntilClosed


@dataclass(frozen=True, slots=True)
class TopicEvent(Generic[TCo]):
    """An event of one of several topics.

    Attributes:
        topic: Which topic.
        event: What its subscription alone would deliver; or :class:`streamq.ReadFailure`, after the
            last event, with the error that it would raise.
    """

    topic: str
    event: Chunk[TCo] | Reset | Seal | ReadFailure


def subscribe_topics(
    execution: WorkflowHandle[Any, Any] | ActivityHandle[Any] | str,
    topics: Sequence[str],
    *,
    client: Client | None = None,
    from_: Literal["beginning", "last", "tail"] | Mapping[str, str] = "beginning",
    queue: ChunkQueue | None = None,
    settings: Settings | None = None,
    idle_seconds: float = math.inf,
    start_seconds: float = START_SECONDS,
    value_type: type[T] | None = None,
) -> TopicsSubscription[T]:
    """Read several topics of a workflow or activity in one iteration, as :func:`subscribe` does.

    Use it as ``async with subscribe_topics(handle, ["answer", "log"]) as events:`` and iterate: an
    item has the name of its topic and an event. The topics share one queue and one long poll of
    Temporal. Each ends with its own seal or failure. The iteration ends when all have ended, or
    with the workflow: a topic that was not sealed then has a failure, ``ProducerGoneError``.

    Args:
        execution: As for :func:`subscribe`.
        topics: Which of its streams.
        client: A client of the workflow's namespace; needed with an id. A handle has its own.
        from_: As for :func:`subscribe`, for all topics; or a mapping of topics to cursors, as
            ``events.cursors`` is: a topic that is not in it is read from its beginning.
        queue: An open queue to use; it stays open. By default one is opened and closed.
        settings: Limits and defaults; by default those that are configured.
        idle_seconds: How long to wait for the next event of each topic, after which it has a
            failure, ``IdleTimeoutError``; by default as long as the workflow runs.
        start_seconds: How long entering waits for a workflow or activity that does not exist yet.
        value_type: Type to which the client's data converter decodes every value of every topic.

    Raises:
        ConfigurationError: A topic or a time is not usable, there is no topic, or an id comes
            without a client.
    """
    if isinstance(topics, str):
        raise ConfigurationError(f"topics is the text {topics!r}; give a list: [{topics!r}]")
    if not topics:
        raise ConfigurationError("topics is empty; name at least one topic")
    for name, seconds in (("idle_seconds", idle_seconds), ("start_seconds", start_seconds)):
        if not seconds >= 0:  # NaN neither
            raise ConfigurationError(f"{name} must be 0 or more, not {seconds}")
    return TopicsSubscription(
        target_of(execution, client),
        [check_topic(topic) for topic in topics],
        from_,
        queue,
        settings,
        idle_seconds,
        start_seconds,
        value_type,
    )


class TopicsSubscription(Generic[T]):
    """Events of several streams of an execution: an async context manager and async iterator.

    For one task at a time. Cancelling the iteration loses nothing.

    Entering raises what entering a :class:`Subscription` does.

    Iterating raises:
        BackendUnavailableError: Temporal stayed unreachable while no event came.
        StreamqError: Temporal refuses to say whether the execution goes on. What concerns one topic
            is a :class:`streamq.ReadFailure`.
    """

    def __init__(
        self,
        target: Target,
        topics: Sequence[str],
        from_: str | Mapping[str, str],
        queue: ChunkQueue | None,
        settings: Settings | None,
        idle_seconds: float,
        start_seconds: float,
        value_type: type[T] | None,
    ) -> None:
        self._target = target
        self._wanted = topics
        self._from = from_
        self._given = queue
        self._settings = settings or load_settings()
        self._idle_seconds = idle_seconds
        self._start_seconds = start_seconds
        self._value_type = value_type
        self._owned: ChunkQueue | None = None
        self._readers: StreamReaders[T, Any] | None = None
        self._watch: UntilClosed | None = None
        self._topics: dict[StreamId, str] = {}
        self._heard: set[StreamId] = set()
        self._lost: deque[TopicEvent[T]] = deque()

    async def __aenter__(self) -> Self:
        target, client, chosen = self._target, self._target.client, self._settings
        execution, is_new = await target.find(chosen, start_seconds=self._start_seconds)
        streams = {topic: stream_id(execution.stream_name(topic), chosen) for topic in self._wanted}
        self._topics = {stream: topic for topic, stream in streams.items()}
        places: str | dict[StreamId, str]
        if isinstance(self._from, str):
            # All events of an execution that did not exist come after the subscription began.
            places = "beginning" if is_new and self._from == "tail" else self._from
        else:
            places = {streams[each]: at for each, at in self._from.items() if each in streams}
        queue = self._given
        if queue is None:
            queue = self._owned = await open_queue(chosen)
        try:
            self._readers = await begin_readers(
                queue,
                list(self._topics),
                chosen,
                lambda stream: conversion(
                    client.data_converter, stream.name, client.namespace, self._value_type
                ),
                from_=places,
                idle_seconds=self._idle_seconds,
            )
        except BaseException:
            await close_all(self._close_queue)
            raise
        self._watch = UntilClosed(target, execution, chosen.idle_seconds)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await close_all(self._end_watch, self._close_readers, self._close_queue)

    @property
    def streams(self) -> Mapping[str, StreamId]:
        """The stream of each topic."""
        return {topic: stream for stream, topic in self._topics.items()}

    @property
    def cursors(self) -> Mapping[str, str]:
        """The place after the last event delivered, of each topic: pass it as ``from_`` later."""
        cursors = self._open_readers().cursors
        return {topic: cursors[stream] for stream, topic in self._topics.items()}

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TopicEvent[T]:
        """Return the next event of any topic.

        Raises:
            StopAsyncIteration: Every topic has ended.
            StreamqError: As listed for the class.
        """
        readers, watch = self._open_readers(), self._watch
        if watch is None:
            raise ClosedError("this subscription is closed")
        while True:
            if self._lost:
                return self._lost.popleft()
            item = await watch.next(readers.__anext__, f"of {len(self._topics)} topics")
            if item is None:
                if watch.is_cancelled:
                    raise ClosedError("this subscription is closed")
                try:  # what was still in transit when the execution ended
                    async with asyncio.timeout(GRACE_SECONDS) as grace:
                        item = await readers.__anext__()
                except TimeoutError:
                    if not grace.expired():
                        raise
                    await self._give_up(readers, watch)
                    continue
            self._heard.add(item.stream)
            assert not isinstance(item.event, StreamFound)  # there are no prefixes
            return TopicEvent(self._topics[item.stream], item.event)

    async def _give_up(self, readers: StreamReaders[T, Any], watch: UntilClosed) -> None:
        """Let each topic that was not sealed fail: its producer is gone."""
        for stream in readers.streams:
            exists = stream in self._heard or await self._exists(stream)
            error = watch.gone(stream, exists=exists)
            readers.give_up(stream)
            self._lost.append(TopicEvent(self._topics[stream], ReadFailure(error)))

    async def _exists(self, stream: StreamId) -> bool:
        queue = self._given or self._owned
        assert queue is not None
        try:
            await calling.describe(queue, stream)
        except StreamNotFoundError:
            return False
        except StreamqError:
            return True  # it is not known, and an outage is no sign of a mistake
        return True

    def _open_readers(self) -> StreamReaders[T, Any]:
        if self._readers is None:
            raise ClosedError("enter the subscription first: async with subscribe_topics(...)")
        return self._readers

    async def _end_watch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            await watch.aclose()

    async def _close_readers(self) -> None:
        if self._readers is not None:
            await self._readers.aclose()

    async def _close_queue(self) -> None:
        owned, self._owned = self._owned, None
        if owned is not None:
            await calling.close(owned)
