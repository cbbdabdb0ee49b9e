"""Reads the stream of a workflow or standalone activity from outside, to the end of either.

Design: docs/design/temporal-reading.md.
"""

from __future__ import annotations

import math
from types import TracebackType
from typing import Any, Generic, Literal, Self

from temporalio.client import ActivityHandle, Client, WorkflowHandle

from streamq._errors import ClosedError, ConfigurationError, StreamNotFoundError
from streamq._events import Event, Seal, StreamId
from streamq._settings import Settings, load_settings
from streamq.calling import _calls as calling
from streamq.driver import ChunkQueue, close_all
from streamq.opening._open import open_queue, open_reader, stream_id
from streamq.reading._reader import StreamReader
from streamq.records._values import T

from ._names import DEFAULT_TOPIC, check_topic
from ._serializer import conversion
from ._targets import Target, target_of
from ._tracing import ReadingSpan
from ._until_closed import GRACE_SECONDS, START_SECONDS, UntilClosed


def subscribe(
    execution: WorkflowHandle[Any, Any] | ActivityHandle[Any] | str,
    topic: str = DEFAULT_TOPIC,
    *,
    client: Client | None = None,
    from_: Literal["beginning", "last", "tail"] | str = "beginning",
    queue: ChunkQueue | None = None,
    settings: Settings | None = None,
    idle_seconds: float = math.inf,
    start_seconds: float = START_SECONDS,
    value_type: type[T] | None = None,
) -> Subscription[T]:
    """Read a workflow's or activity's stream while it is written, afterwards, or before its start.

    Use it as ``async with subscribe(handle) as events:`` and iterate. The chunks come straight from
    the queue. Temporal is queried for the first run id, if the handle does not have it, and once
    more, by one long poll, for the end of the workflow. The iteration ends with the stream's seal,
    or with the workflow. Pass an idle deadline as well if the workflow may run for days after an
    activity that could not seal its stream.

    A standalone activity, which a client started without a workflow, is followed in the same way
    with its handle; ``client.get_activity_handle(id)`` makes one of an id.

    Entering waits for a workflow or activity that does not exist yet. An id, or a handle without
    run id, means the newest run of that id. If an id is used again and the next run has not been
    started yet, that is the previous run.

    Args:
        execution: The handle of a workflow or of a standalone activity, with or without a run id,
            or the id of a workflow. Any run of a workflow's chain will do.
        topic: Which of its streams.
        client: A client of the workflow's namespace; needed with an id. A handle has its own.
        from_: ``"beginning"``; ``"last"`` for the latest value and everything after it; ``"tail"``
            for events after now, which is all of them if the workflow does not exist yet; or a
            cursor.
        queue: An open queue to use; it stays open. By default one is opened and closed.
        settings: Limits and defaults; by default those that are configured.
        idle_seconds: How long to wait for the next event; by default as long as the workflow runs.
        start_seconds: How long entering waits for a workflow or activity that does not exist yet.
        value_type: Type to which the client's data converter decodes every value.

    Raises:
        ConfigurationError: The topic or a time is not usable, or an id comes without a client.
    """
    target = target_of(execution, client)
    for name, seconds in (("idle_seconds", idle_seconds), ("start_seconds", start_seconds)):
        if not seconds >= 0:  # NaN neither
            raise ConfigurationError(f"{name} must be 0 or more, not {seconds}")
    return Subscription(
        target,
        check_topic(topic),
        from_,
        queue,
        settings,
        idle_seconds,
        start_seconds,
        value_type,
    )


class Subscription(Generic[T]):
    """Events of one stream of an execution: an async context manager and async iterator.

    Iterating gives the events of :class:`streamq.StreamReader`, the seal last. For one task at a
    time. Cancelling the iteration loses nothing.

    Entering raises:
        StreamNotFoundError: There is no such workflow or activity, or none within the start
            deadline.
        ConfigurationError: The server runs no activities without a workflow.
        BackendUnavailableError: Temporal (``backend == "temporal"``) or the queue is unreachable.
        AccessDeniedError: One of them refuses our credentials.
        StreamqError: As for :func:`streamq.open_reader`.

    Iterating raises:
        ProducerGoneError: The workflow or activity ended without sealing the stream, and nothing
            more came for a short while. Continue-as-new, retry and reset are not the end.
        IdleTimeoutError: Nothing came within the idle deadline, if there is one.
        BackendUnavailableError: The queue, or Temporal, stayed unreachable.
        StreamqError: As for :class:`streamq.StreamReader`.
    """

    def __init__(
        self,
        target: Target,
        topic: str,
        from_: str,
        queue: ChunkQueue | None,
        settings: Settings | None,
        idle_seconds: float,
        start_seconds: float,
        value_type: type[T] | None,
    ) -> None:
        self._value_type = value_type
        self._target = target
        self._topic = topic
        self._from = from_
        self._given = queue
        self._settings = settings or load_settings()
        self._idle_seconds = idle_seconds
        self._start_seconds = start_seconds
        self._owned: ChunkQueue | None = None
        self._reader: StreamReader[T] | None = None
        self._watch: UntilClosed | None = None
        self._span = ReadingSpan()

    async def __aenter__(self) -> Self:
        self._span.begin(self._target.span_attribute, self._target.id)
        try:
            await self._open()
        except BaseException as exc:
            self._span.end(None, exc)
            raise
        return self

    async def _open(self) -> None:
        target, client, chosen = self._target, self._target.client, self._settings
        execution, is_new = await target.find(chosen, start_seconds=self._start_seconds)
        if is_new and self._from == "tail":
            self._from = "beginning"  # all events come after the subscription began
        stream = stream_id(execution.stream_name(self._topic), chosen)
        queue = self._given
        if queue is None:
            queue = self._owned = await open_queue(chosen)
        try:
            serializer, codec = conversion(
                client.data_converter, stream.name, client.namespace, self._value_type
            )
            self._reader = await open_reader(
                stream,
                serializer=serializer,
                codec=codec,
                from_=self._from,
                queue=queue,
                settings=chosen,
                idle_seconds=self._idle_seconds,
            )
        except BaseException:
            await close_all(self._close_queue)
            raise
        self._span.opened(stream, queue.backend)
        self._watch = UntilClosed(target, execution, chosen.idle_seconds)

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._span.end(self._reader, exc)
        await close_all(self._end_watch, self._close_reader, self._close_queue)

    @property
    def stream(self) -> StreamId:
        """The stream."""
        return self._open_reader().stream

    @property
    def cursor(self) -> str:
        """Token of the position after the last event delivered."""
        return self._open_reader().cursor

    @property
    def seal(self) -> Seal | None:
        """The seal, once it has been delivered."""
        return self._open_reader().seal

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event[T]:
        """Return the next event.

        Raises:
            StopAsyncIteration: The seal has been delivered.
            StreamqError: As listed for the class.
        """
        reader, watch = self._open_reader(), self._watch
        if watch is None:
            raise ClosedError("this subscription is closed", stream=str(reader.stream))
        event = await watch.next(reader.__anext__, str(reader.stream))
        if event is None:
            event = await self._read_rest(reader, watch)
        self._span.follow(reader)
        return event

    async def _read_rest(self, reader: StreamReader[T], watch: UntilClosed) -> Event[T]:
        """Return the next event that was still in transit when the execution ended."""
        if reader.seal is not None:
            raise StopAsyncIteration
        if watch.is_cancelled:
            raise ClosedError("this subscription is closed", stream=str(reader.stream))
        batch = await reader.read_batch(max_events=1, max_wait=GRACE_SECONDS)
        if batch:
            return batch[0]
        exists = bool(reader.offset) or await self._exists(reader.stream)
        raise watch.gone(reader.stream, exists=exists)

    async def _exists(self, stream: StreamId) -> bool:
        queue = self._given or self._owned
        assert queue is not None
        try:
            await calling.describe(queue, stream)
        except StreamNotFoundError:
            return False
        return True

    def _open_reader(self) -> StreamReader[T]:
        if self._reader is None:
            raise ClosedError("enter the subscription first: async with subscribe(...) as events")
        return self._reader

    async def _end_watch(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            await watch.aclose()

    async def _close_reader(self) -> None:
        if self._reader is not None:
            await self._reader.aclose()

    async def _close_queue(self) -> None:
        owned, self._owned = self._owned, None
        if owned is not None:
            await calling.close(owned)
