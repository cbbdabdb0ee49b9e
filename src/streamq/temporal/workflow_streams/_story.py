"""Reads the stream of a topic as passages: which publisher sent which of its chunks.

Design: docs/design/workflow-streams.md.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat

from streamq._errors import CorruptRecordError, SerializationError
from streamq._events import Chunk, Event, Gap, Reset, StreamId
from streamq._retry import RetryPolicy
from streamq.calling._reads import Reads
from streamq.driver import START, ChunkQueue, Stored
from streamq.reading._sequencer import Sequencer
from streamq.records._codec import Codec, reveal
from streamq.records._values import Encoding
from streamq.records._wire import Record

_CALL, _EPOCH, _WORKFLOW_ATTEMPT = "streamq-call", "streamq-epoch", "streamq-workflow-attempt"
_REPEATED = "streamq-repeated"
_MOST_NAMED = 30  # of some 70 bytes each
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
        publisher: The publisher, if it is known.
        values: The chunks.
    """

    publisher: Publisher | None
    values: list[Value] = field(default_factory=list)


class TopicStory:
    """The valid chunks of a stream.

    A publisher that voids chunks of its earlier attempt resets the stream, and stores the chunks of
    the other publishers once more. Its opening states whose they are, and how many. If it dies, or
    another publisher takes over, before all of them are stored, those from before the reset are
    valid.

    It can be taken piece by piece: after each record it is that of the records so far.
    """

    def __init__(self) -> None:
        self._is_broken = False
        self._passages: list[Passage] = []
        self._voided: list[Passage] = []
        self._missing = 0
        self._owner: Publisher | None = None
        self._repeated: deque[Publisher | None] = deque()

    @property
    def passages(self) -> list[Passage]:
        """The passages in order."""
        return self._voided if self._missing else self._passages

    @property
    def is_broken(self) -> bool:
        """Whether readers miss chunks after the last reset."""
        return self._is_broken or self._missing > 0

    def open(self, headers: Mapping[str, str]) -> None:
        """Take the opening of the next publisher.

        Raises:
            CorruptRecordError: A header is malformed.
        """
        if self._missing:
            self._passages, self._missing, self._is_broken = self._voided, 0, True
        self._voided = []
        self._owner = Publisher.of(headers)
        self._repeated = deque(_repeated(headers))

    def feed(self, event: Event | Gap) -> None:
        """Take the next event after an opening."""
        if isinstance(event, Reset):
            self._voided, self._passages = self._passages, []
            self._missing, self._is_broken = len(self._repeated), False
        elif isinstance(event, Chunk):
            publisher = self._owner
            if self._missing:
                publisher, self._missing = self._repeated.popleft(), self._missing - 1
            if not self._passages or self._passages[-1].publisher != publisher:
                self._passages.append(Passage(publisher))
            self._passages[-1].values.append((event.encoding, event.data))


def repeated_together(passages: Iterable[Passage]) -> list[Passage]:
    """Return the passages with one for each publisher, in the order in which they began.

    Calls that follow each other stay in order; of calls at the same time only the order between
    them changes.
    """
    found: dict[Publisher | None, Passage] = {}
    for each in passages:
        found.setdefault(each.publisher, Passage(each.publisher)).values.extend(each.values)
    return list(found.values())


def repetition_headers(passages: Sequence[Passage]) -> dict[str, str]:
    """Return the headers that state whose chunks are stored once more, and how many.

    Those of the oldest publishers are stated without a name, if there are too many.
    """
    older, named = passages[:-_MOST_NAMED], passages[-_MOST_NAMED:]
    parts = [("", sum(len(each.values) for each in older))] if older else []
    parts += [(_text(each.publisher), len(each.values)) for each in named]
    return {_REPEATED: " ".join(f"{name}*{count}" for name, count in parts)} if parts else {}


def _text(publisher: Publisher | None) -> str:
    if publisher is None:
        return ""
    return f"{publisher.call},{publisher.epoch},{publisher.workflow_attempt}"


def _repeated(headers: Mapping[str, str]) -> Iterator[Publisher | None]:
    for part in headers.get(_REPEATED, "").split():
        name, _, count = part.partition("*")
        try:
            call, epoch, attempt = name.split(",") if name else ("", "0", "0")
            publisher = Publisher(call, int(epoch), int(attempt)) if name else None
            yield from repeat(publisher, int(count))
        except ValueError:
            raise CorruptRecordError(
                f"the header {_REPEATED} of an opening has {part[:100]!r}, which is not "
                "call,epoch,attempt*count; another program wrote to the stream"
            ) from None


class StoryReader:
    """Reads the story of a stream, and later what has been added to it.

    Args:
        queue: The queue.
        stream: The stream.
        retry: Policy of the reads.
        codec: Decodes records.

    Attributes:
        story: The story of the records that have been read.
    """

    def __init__(
        self, queue: ChunkQueue, stream: StreamId, retry: RetryPolicy, codec: Codec | None
    ) -> None:
        self.story = TopicStory()
        self._queue = queue
        self._stream = stream
        self._retry = retry
        self._codec = codec
        self._sequencer = Sequencer(gaps_as_events=True)
        self._position = START
        self._reads = Reads(queue, stream)

    @property
    def epoch(self) -> int:
        """The newest epoch that has been read."""
        return self._sequencer.epoch

    @property
    def next_seq(self) -> int:
        """The number of valid chunks that have been read."""
        return self._sequencer.next_seq

    async def advance(self, *, epoch: int | None = None, position: str | None = None) -> bool:
        """Read on to a record of the given epoch, or to the one at the driver's position.

        Returns:
            Whether it was found. If not, all that is stored has been read.

        Raises:
            CorruptRecordError: A stored record is damaged.
            SerializationError: A codec is missing or failed.
            CursorError: The stream was deleted, and began again.
            BackendUnavailableError: The backend stayed unreachable for the retry deadline.
        """
        is_there = self._position == position
        while not is_there:
            found = await self._retry.run(self._read)
            for stored in found:
                try:
                    await self._feed(stored.data)
                except (CorruptRecordError, SerializationError) as exc:
                    exc.backend, exc.stream = self._queue.backend, str(self._stream)
                    raise
                self._position = stored.position
                is_there |= stored.position == position
            is_there |= epoch is not None and self.epoch >= epoch
            if not found:
                break
        return is_there

    async def _read(self) -> Sequence[Stored]:
        return await self._reads.read(
            self._position,
            max_records=_READ_RECORDS,
            max_bytes=_READ_BYTES,
            max_wait=0.0,
        )

    async def _feed(self, data: bytes) -> None:
        record = await reveal(Record.decode(data), self._codec, seconds=self._retry.call_seconds)
        before = self._sequencer.epoch
        events = self._sequencer.feed(record)
        if self._sequencer.epoch != before:
            self.story.open(self._sequencer.headers)
        for event in events:
            self.story.feed(event)
