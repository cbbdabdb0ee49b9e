"""Offers a real writer whose chunks a test can look at.

Design: docs/design/testing-applications.md.
"""

from __future__ import annotations

import uuid
from collections.abc import Coroutine, Sequence
from typing import Any, Generic, overload

from temporalio.converter import DataConverter
from typing_extensions import TypeVar

from streamq._events import Chunk, Event, Reset, Seal, StreamId
from streamq._settings import Settings, load_settings
from streamq.driver import ChunkQueue
from streamq.opening._open import open_writer
from streamq.opening._opening import Opening
from streamq.records._values import Encoding, Serializer
from streamq.temporal._serializer import conversion
from streamq.writing._policies import OnFull, OnRetry
from streamq.writing._writer import StreamWriter

from ._recorded import RecordedStream
from ._script import Script
from ._storage import chosen_converter, memory_queue, write_earlier

T = TypeVar("T", default=Any)

_NAMESPACE = "default"


class RecordingWriter(StreamWriter[T], Generic[T]):
    """A :class:`~streamq.StreamWriter` that records what it has accepted, for tests.

    It is another view of a writer that was opened as usual, and shares all of its state: chunks are
    encoded, checked, numbered, stored and sealed by the code that does so in production.

    Args:
        writer: The writer.
        serializer: Decodes the recorded values.
        script: What happens to the attempt that writes.
        counts: Whether the script counts the chunks of this writer.
    """

    def __init__(
        self,
        writer: StreamWriter[Any],
        serializer: Serializer[T],
        script: Script | None = None,
        *,
        counts: bool = True,
    ) -> None:
        self.__dict__ = writer.__dict__
        self._recorded: list[tuple[Encoding, bytes]] = []
        self._recorded_serializer = serializer
        self._first_offset = self._outbox._next_offset
        self._begins_with_reset = self._outbox._resets
        self._script = script if counts else None
        self._own_queue: ChunkQueue | None = None

    @property
    def recorded(self) -> RecordedStream[T]:
        """What this writer has accepted so far, as events with their offsets.

        A seal is among them once it is stored. Chunks of earlier attempts are not, nor those that
        ``OnRetry.REPLAY`` has compared with them.
        """
        return RecordedStream(self.stream, self._events())

    @property
    def chunks(self) -> list[T]:
        """The values that this writer has accepted, decoded."""
        return self.recorded.chunks

    @property
    def text(self) -> str:
        """The values as one text."""
        return self.recorded.text

    @property
    def events(self) -> list[Event[T]]:
        """What this writer has accepted, as events; the seal once it is stored."""
        return self._events()

    @property
    def sends(self) -> int:
        """How many values were sent."""
        return len(self._recorded)

    @property
    def sent(self) -> list[T]:
        """The values that were sent, with those that were only compared or discarded."""
        decode = self._recorded_serializer.decode
        return [decode(encoding, data) for encoding, data in self._recorded]

    async def aclose(self) -> None:
        """Close the writer, and the queue if it is the writer's own."""
        try:
            await super().aclose()
        finally:
            if self._own_queue is not None:
                await self._own_queue.aclose()

    def __repr__(self) -> str:
        return f"<RecordingWriter {self.recorded!r}>"

    def _offer(self, value: T) -> Coroutine[Any, Any, None] | None:
        delay = self._script.delay() if self._script is not None else None
        return super()._offer(value) if delay is None else self._offer_after(delay, value)

    async def _offer_after(self, delay: Coroutine[Any, Any, None], value: T) -> None:
        await delay
        later = super()._offer(value)
        if later is not None:
            await later
        self._wake.set()

    def _accept(self, encoding: Encoding, data: bytes) -> None:
        script, sent = self._script, len(self._recorded)
        if script is not None:
            script.accepts(sent)
        super()._accept(encoding, data)
        self._recorded.append((encoding, data))
        if script is not None:
            script.accepted(sent + 1)

    def _events(self) -> list[Event[T]]:
        offset, events = self._first_offset, list[Event[T]]()
        if self._begins_with_reset:
            events.append(Reset(offset, self.attempt, self.epoch))
        replayed = self._replayed
        for number, (encoding, data) in enumerate(self._recorded[replayed:]):
            events.append(
                Chunk(
                    offset + len(events),
                    self.attempt,
                    self.resumed_from + number,
                    encoding,
                    data,
                    self._recorded_serializer,
                    self.epoch,
                )
            )
        seal = self._outbox.seal
        if seal is not None and self.is_sealed:
            events.append(
                Seal(
                    offset + len(events),
                    self.attempt,
                    seal.state,
                    seal.error_type,
                    seal.message,
                    seal.retryable,
                    self.epoch,
                )
            )
        return events


@overload
def recording_writer(
    value_type: type[T],
    *,
    earlier: Sequence[Any] = ...,
    on_retry: OnRetry = ...,
    on_full: OnFull = ...,
    queue: ChunkQueue | None = ...,
    settings: Settings | None = ...,
    data_converter: DataConverter | None = ...,
) -> Opening[RecordingWriter[T]]: ...
@overload
def recording_writer(
    value_type: None = ...,
    *,
    earlier: Sequence[Any] = ...,
    on_retry: OnRetry = ...,
    on_full: OnFull = ...,
    queue: ChunkQueue | None = ...,
    settings: Settings | None = ...,
    data_converter: DataConverter | None = ...,
) -> Opening[RecordingWriter[Any]]: ...
def recording_writer(
    value_type: type[Any] | None = None,
    *,
    earlier: Sequence[Any] = (),
    on_retry: OnRetry = OnRetry.RESTART,
    on_full: OnFull = OnFull.BLOCK,
    queue: ChunkQueue | None = None,
    settings: Settings | None = None,
    data_converter: DataConverter | None = None,
) -> Opening[RecordingWriter[Any]]:
    """Open a writer for ``stream=`` of a direct call, on a stream in memory that nothing shares.

    ``async with recording_writer() as stream: await generate("sea", stream=stream)``, and then
    ``assert stream.chunks == [...]``. Leaving the block seals the stream as for any writer. For a
    function in a thread pass ``BlockingStreamWriter(stream)``, and call it in another thread:
    ``await asyncio.to_thread(transcribe, "tape 7", stream=BlockingStreamWriter(stream))``.

    No attempt runs here: nothing is retried, cancelled or sealed as Temporal's outcome demands.
    :func:`record` does all that.

    Args:
        value_type: Type that the recorded values are decoded as; by default that of their JSON.
        earlier: Values that an earlier attempt has sent: with ``OnRetry.RESUME`` the writer's
            ``position`` is their number.
        on_retry: How the writer continues that attempt.
        on_full: What ``send_chunk`` does while the buffer has no room.
        queue: An open queue to use, such as a :class:`FaultyQueue`; it stays open. By default one
            in memory, which is closed with the writer.
        settings: Limits and the tenant; by default those that are configured.
        data_converter: Encodes the values; by default that of ``STREAMQ_DATA_CONVERTER``, or the
            SDK's default.
    """

    async def opener() -> RecordingWriter[Any]:
        chosen = settings or load_settings()
        converter = chosen_converter(data_converter, None, chosen)
        name = f"recorded/{uuid.uuid4()}/default"
        stream = StreamId(chosen.tenant, name)
        serializer, codec = conversion(converter, name, _NAMESPACE)
        used = queue or await memory_queue(chosen)

        async def opened() -> StreamWriter[Any]:
            return await open_writer(
                stream,
                queue=used,
                settings=chosen,
                on_retry=on_retry,
                on_full=on_full,
                serializer=serializer,
                codec=codec,
            )

        if earlier:
            await write_earlier(opened, earlier)
        decoder, _ = conversion(converter, name, _NAMESPACE, value_type)
        writer = RecordingWriter(await opened(), decoder)
        if queue is None:
            writer._own_queue = used
        return writer

    return Opening(opener)
