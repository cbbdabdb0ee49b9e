"""Reads the stream of a topic as passages: which publisher sent which of its chunks.

Design: docs/design/workflow-streams.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from streamq._errors import CorruptRecordError, SerializationError
from streamq._events import Chunk, EventOrGap, Reset, StreamId
from streamq._retry import RetryPolicy
from streamq.driver import START, ChunkQueue
from streamq.reading._sequencer import Sequencer
from streamq.records._codec import Codec, reveal
from streamq.records._values import Encoding
from streamq.records._wire import Record

_CALL, _EPOCH, _WORKFLOW_ATTEMPT = "streamq-call", "streamq-epoch", "streamq-workflow-attempt"
_REPETITION, _REPEATED = "streamq-repetition", "streamq-repeated"
_READ_RECORDS, _READ_BYTES = 1_000, 4_194_304

Value = tuple[Encoding, bytes]
"""A chunk as it is stored."""


@dataclass(frozen=True, slots=True)
class Publisher:
    """One attempt of one call that publishes to a topic, as the headers of its openings state it.

    Attributes:
        call: Identifies the call of the activity.
        epoch: Grows with every attempt of the call.
        workflow_attempt: Which attempt of the workflow made the call.
    """

    call: str
    epoch: int
    workflow_attempt: int

    def headers(self) -> dict[str, str]:
        """Return the headers of an opening."""
        return {
            _CALL: self.call,
            _EPOCH: str(self.epoch),
            _WORKFLOW_ATTEMPT: str(self.workflow_attempt),
        }

    @classmethod
    def of(cls, headers: Mapping[str, str]) -> Publisher | None:
        """Return the publisher that the headers state; ``None`` for a writer of another kind."""
        try:
            return cls(headers[_CALL], int(headers[_EPOCH]), int(headers[_WORKFLOW_ATTEMPT]))
        except (KeyError, ValueError):
            return None

    def supersedes(self, other: Publisher | None) -> bool:
        """Whether this is a later attempt of the same call, or of the whole workflow."""
        if other is None:
            return False
        if self.workflow_attempt != other.workflow_attempt:
            return self.workflow_attempt > other.workflow_attempt
        return self.call == other.call and self.epoch > other.epoch


@dataclass(slots=True)
class Passage:
    """Consecutive chunks of one publisher.

    Attributes:
        headers: Headers of their opening.
        values: The chunks.
    """

    headers: Mapping[str, str]
    values: list[Value] = field(default_factory=list)

    @property
    def publisher(self) -> Publisher | None:
        """Their publisher."""
        return Publisher.of(self.headers)

    @property
    def repetition(self) -> str | None:
        """Which repetition the chunks belong to, if they were stored once more after a reset."""
        return self.headers.get(_REPETITION)


@dataclass(slots=True)
class Story:
    """The valid chunks of a stream.

    A publisher that voids chunks of its earlier attempt resets the stream, and stores the chunks of
    the other publishers once more. If it dies before it has stored all of them, they are taken
    from before the reset.

    Attributes:
        passages: The chunks after the last reset.
        voided: The chunks before it, which are valid as long as their repetition is incomplete.
        missing: How many chunks of the repetition are missing.
    """

    passages: list[Passage] = field(default_factory=list)
    voided: list[Passage] = field(default_factory=list)
    missing: int = 0

    def feed(self, event: EventOrGap) -> None:
        """Take the next event of the newest passage."""
        newest = self.passages[-1]
        if isinstance(event, Chunk):
            newest.values.append((event.encoding, event.data))
            if self.missing and newest.repetition is not None:
                self.missing -= 1
        elif isinstance(event, Reset):
            self.voided, self.passages = self.valid(without=newest), [newest]
            self.missing = int(newest.headers.get(_REPEATED, "0"))

    def valid(self, *, without: Passage | None = None) -> list[Passage]:
        """Return the passages whose chunks are valid."""
        passages = [each for each in self.passages if each is not without]
        if not self.missing:
            return passages
        return [*self.voided, *(each for each in passages if each.repetition is None)]


def repetition_headers(headers: Mapping[str, str], name: str, chunks: int) -> dict[str, str]:
    """Return the headers under which the chunks of a passage are stored once more.

    Args:
        headers: Headers of the passage.
        name: Name of the repetition.
        chunks: How many chunks it has in all its passages.
    """
    return {**headers, _REPETITION: name, _REPEATED: str(chunks)}


async def read_story(
    queue: ChunkQueue, stream: StreamId, retry: RetryPolicy, codec: Codec | None
) -> Story:
    """Read a stream from its beginning to its newest record.

    Raises:
        CorruptRecordError: A stored record is damaged.
        SerializationError: A codec is missing or failed.
        BackendUnavailableError: The backend stayed unreachable for the retry deadline.
    """
    sequencer, story, position = Sequencer(gaps_as_events=True), Story(), START
    while True:
        read = partial(
            queue.read,
            stream,
            position,
            max_records=_READ_RECORDS,
            max_bytes=_READ_BYTES,
            max_wait=0.0,
        )
        found = await retry.run(read)
        if not found:
            return story
        for stored in found:
            try:
                record = Record.decode(stored.data)
                record = await reveal(record, codec, seconds=retry.call_seconds)
                before = sequencer.epoch
                events = sequencer.feed(record)
            except (CorruptRecordError, SerializationError) as exc:
                exc.backend, exc.stream = queue.backend, str(stream)
                raise
            if sequencer.epoch != before:
                story.passages.append(Passage(dict(sequencer.headers)))
            for event in events:
                story.feed(event)
        position = found[-1].position
