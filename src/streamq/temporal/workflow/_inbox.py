"""Receives the signals of ``streamq.forward`` in a workflow: each event once, in order."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Generic, Self

from temporalio import workflow
from temporalio.exceptions import ApplicationError

from streamq._errors import SerializationError, TrimmedError, error_text
from streamq._events import Chunk, Event, Seal
from streamq.records._values import PLAIN, Encoding, Serializer, T, encode_value
from streamq.temporal._event_json import pack, unpack
from streamq.temporal._failure import failure_type
from streamq.temporal._serializer import PayloadDecoder, PayloadSerializer

_HANDOVER_BYTES = 1_000_000  # all arguments of the next run may have 2 MiB
_NO_BATCH = (
    SerializationError,
    LookupError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
)


@dataclass(slots=True)
class InboxState:
    """State of an inbox for the next run; an argument of ``workflow.continue_as_new``.

    Attributes:
        stream: Name of the stream; ``None`` before the first batch.
        offset: Offset of the last event received.
        backlog: Events received and not yet returned, as a batch.
        sealed: Whether the seal has been received.
        error: If forwarding failed, its ``type`` and ``message``.
    """

    stream: str | None = None
    offset: int = 0
    backlog: list[dict[str, Any]] = field(default_factory=list)
    sealed: bool = False
    error: dict[str, str] | None = None


class _WorkflowSerializer:
    """Decodes payloads with the converter of the workflow that asks for a value."""

    encode = staticmethod(encode_value)

    def decode(self, encoding: Encoding, data: bytes) -> Any:
        """Turn bytes back into a value.

        Raises:
            SerializationError: They cannot be decoded.
        """
        if encoding is not Encoding.PAYLOAD or not workflow.in_workflow():
            return PLAIN.decode(encoding, data)
        payloads: PayloadSerializer[Any] = PayloadSerializer(workflow.payload_converter())
        return PayloadDecoder(payloads, PLAIN).decode(encoding, data)


class StreamInbox(Generic[T]):
    """Receives one stream in a workflow, from the signals of delivery ``signal``.

    ::

        @workflow.defn
        class Gateway:
            @workflow.init
            def __init__(self, state: InboxState | None = None) -> None:
                self.inbox = StreamInbox(state)

            @workflow.signal(name="streamq.batch")
            def on_batch(self, batch: dict[str, Any]) -> None:
                self.inbox.put(batch)

            @workflow.run
            async def run(self, state: InboxState | None = None) -> None:
                async for event in self.inbox:
                    ...
                    if self.inbox.should_continue_as_new:
                        workflow.continue_as_new(self.inbox.state())

    Iterating returns each event once and in order, even if a batch arrives several times, and ends
    after the seal. It waits without a deadline: use ``asyncio.timeout`` to set one. Cancelling an
    iteration loses nothing. All of it is deterministic.

    **A slow receiver.** There is no flow control: events that have not been returned wait in the
    workflow, and :meth:`state` carries them to the next run as far as they fit into a payload.
    Receive faster than the producer sends, or the run's history reaches Temporal's limits first.

    **Create it in** ``__init__`` with ``@workflow.init``: signals may arrive before ``run`` begins.

    One inbox is for one stream, that of its first batch. If several streams arrive by one signal,
    keep one inbox for each ``batch["stream"]``.

    Args:
        state: Returned by :meth:`state` in the previous run.
        serializer: Decodes the chunks' values; by default text, bytes and JSON are not converted,
            and other payloads are by the workflow's payload converter.
    """

    def __init__(
        self, state: InboxState | None = None, *, serializer: Serializer[T] | None = None
    ) -> None:
        state = state or InboxState()
        serializer = serializer or _WorkflowSerializer()
        self._serializer = serializer
        self._stream = state.stream
        self._offset = state.offset
        self._sealed = state.sealed
        self._error = state.error
        self._backlog: deque[Event] = deque(unpack(state.backlog, serializer))

    @property
    def stream(self) -> str | None:
        """Name of the stream; ``None`` before its first batch."""
        return self._stream

    @property
    def offset(self) -> int:
        """Offset of the last event received."""
        return self._offset

    @property
    def should_continue_as_new(self) -> bool:
        """Whether Temporal suggests it, and the backlog fits into :meth:`state`.

        A backlog above a megabyte does not fit: iterate until it has become smaller.
        """
        if not workflow.info().is_continue_as_new_suggested():
            return False
        stored = sum(len(event.data) for event in self._backlog if isinstance(event, Chunk))
        return stored <= _HANDOVER_BYTES and len(json.dumps(pack(self._backlog))) <= _HANDOVER_BYTES

    def put(self, batch: dict[str, Any]) -> bool:
        """Add a batch without the events that have been received before; never waits or raises.

        A mistake in a batch is raised by the iteration instead: a signal handler that raises would
        stop the whole workflow.

        Returns:
            Whether the batch belongs to this inbox's stream; if not, it is ignored.
        """
        try:
            stream, start = str(batch["stream"]), int(batch["start"])
            events = unpack(batch["events"], self._serializer)
            error = batch.get("error") or {}
            kind, message = str(error.get("type")), str(error.get("message"))
        except _NO_BATCH as exc:
            self._fail(
                failure_type(SerializationError),
                f"a signal that is no batch: {type(exc).__name__}: {error_text(exc)}",
            )
            return False
        if self._stream is None:
            # Forwarding that began in the middle does not send the events before that.
            self._stream, self._offset = stream, max(start - 1, 0)
        if stream != self._stream:
            return False
        for event in events:
            first = getattr(event, "first", event.offset)
            if event.offset <= self._offset or self._sealed or self._error:
                continue
            if first > self._offset + 1:
                self._fail(
                    failure_type(TrimmedError),
                    f"event {first} of stream {stream} came after event {self._offset}: the "
                    "events between them were signalled to another workflow or run",
                )
                break
            self._offset = event.offset
            self._sealed = isinstance(event, Seal)
            self._backlog.append(event)
        if error and not self._sealed:
            self._fail(kind, message)
        return True

    def state(self) -> InboxState:
        """Return the state for the next run, with the events that have not been returned.

        :attr:`should_continue_as_new` checks that they fit.
        """
        return InboxState(
            self._stream, self._offset, pack(self._backlog), self._sealed, self._error
        )

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event[T]:
        """Return the next event.

        Raises:
            StopAsyncIteration: The seal has been returned.
            ApplicationError: Forwarding failed without a retry, or a batch was invalid; not
                retryable. Events that came before that are returned first.
        """
        await workflow.wait_condition(
            lambda: bool(self._backlog) or self._sealed or self._error is not None
        )
        if self._backlog:
            return self._backlog.popleft()
        if self._sealed:
            raise StopAsyncIteration
        error = self._error or {}
        raise ApplicationError(
            f"stream {self._stream} was not forwarded to its end: {error.get('message')}",
            type=error.get("type"),
            non_retryable=True,
        )

    def _fail(self, kind: str, message: str) -> None:
        if self._error is None:
            self._error = {"type": kind, "message": message}
