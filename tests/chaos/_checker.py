"""Compares the events that every reader received with the chunks that every attempt sent.

Pure, and independent of streamq: it uses only what producers recorded before they sent a chunk, and
what readers recorded when they received an event.

Design: docs/design/testing.md.
"""

from __future__ import annotations

import enum
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field


class Defect(enum.Enum):
    """The kinds of defects, in the order of the last line."""

    LOST = "lost"
    DUPLICATED = "duplicated"
    REORDERED = "reordered"
    HUNG = "hung"


@dataclass(frozen=True, slots=True)
class Seen:
    """One event as a reader recorded it.

    Attributes:
        kind: ``chunk``, ``reset``, ``gap`` or ``end``.
        offset, attempt, seq: As the reader received them.
        digest: Digest of a chunk's value.
        state: State of an end: ``END``, ``ERROR`` or ``CANCELLED``.
    """

    kind: str
    offset: int
    attempt: int
    seq: int = -1
    digest: str = ""
    state: str = ""


@dataclass(slots=True)
class Attempt:
    """The records of one attempt.

    Attributes:
        ledger: Name of its file.
        epoch: The attempt's epoch, which is unique.
        number: The attempt's number, as its writer reported it.
        sent: Digest by seq of every chunk that it was about to send.
        acknowledged: Seq before which all chunks are durable, as its writer reported.
        is_done: Whether it reached its end.
    """

    ledger: str
    epoch: int
    number: int
    sent: dict[int, str] = field(default_factory=dict)
    acknowledged: int = 0
    is_done: bool = False


@dataclass(slots=True)
class Stream:
    """One stream: its plan, its attempts and the events that readers received.

    Attributes:
        name: Name of the stream.
        policy: ``restart``, ``resume`` or ``replay``.
        chunks: Number of chunks of the whole text.
        outcome: Outcome of its workflow, ``COMPLETED`` if all is well; empty if it has not ended.
        attempts: The attempts that wrote to it, in any order.
        seen: Events by reader, in the order in which each reader recorded them.
        errors: By reader, the reason why it gave up.
    """

    name: str
    policy: str
    chunks: int
    outcome: str = ""
    attempts: list[Attempt] = field(default_factory=list)
    seen: dict[str, list[Seen]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finding:
    """One defect that was found.

    Attributes:
        defect: The kind of defect.
        stream: The stream that has it.
        where: The reader, ledger or offset that it concerns.
        text: Description of the defect.
    """

    defect: Defect
    stream: str
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.defect.value}: {self.stream}, {self.where}: {self.text}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a run.

    Attributes:
        chunks: Number of different chunks that readers received.
        findings: All defects.
    """

    chunks: int
    findings: tuple[Finding, ...]

    def count(self, defect: Defect) -> int:
        """Return the number of findings of one kind."""
        return sum(finding.defect is defect for finding in self.findings)

    def line(self, faults: int) -> str:
        """Return the last line of a run."""
        counts = " ".join(f"{defect.value}={self.count(defect)}" for defect in Defect)
        return f"chaos: faults={faults} chunks={self.chunks} {counts}"


def check(streams: Iterable[Stream], readers: Sequence[str]) -> Verdict:
    """Judge a run.

    Args:
        streams: All streams.
        readers: Names of the readers that had to read every stream to its end.
    """
    findings: list[Finding] = []
    chunks = 0
    for stream in streams:
        findings += _check_stream(stream, readers)
        offsets = {e.offset for log in stream.seen.values() for e in log if e.kind == "chunk"}
        chunks += len(offsets)
    return Verdict(chunks, tuple(findings))


def _check_stream(stream: Stream, readers: Sequence[str]) -> Iterator[Finding]:
    if stream.outcome != "COMPLETED":
        text = f"it ended {stream.outcome}" if stream.outcome else "it did not end in time"
        yield Finding(Defect.HUNG, stream.name, "workflow", text)
    numbers: dict[int, Attempt] = {}
    for attempt in stream.attempts:
        other = numbers.setdefault(attempt.number, attempt)
        if other is not attempt:
            text = f"epochs {other.epoch} and {attempt.epoch} are both attempt {attempt.number}"
            yield Finding(Defect.DUPLICATED, stream.name, attempt.ledger, text)
    for reader in readers:
        log = stream.seen.get(reader, [])
        for defect, offset, text in _check_log(stream, numbers, reader, log):
            where = f"{reader} at offset {offset}" if offset else reader
            yield Finding(defect, stream.name, where, text)
    yield from _check_agreement(stream, readers)


_Problem = tuple[Defect, int, str]


def _check_log(
    stream: Stream, attempts: Mapping[int, Attempt], reader: str, log: Sequence[Seen]
) -> Iterator[_Problem]:
    yield from _check_offsets(log)
    events = list({event.offset: event for event in reversed(log)}.values())
    events.sort(key=lambda event: event.offset)
    yield from _check_story(stream, attempts, events)
    last = events[-1] if events else None
    if reader in stream.errors:
        yield Defect.LOST, last.offset if last else 0, f"gave up: {stream.errors[reader]}"
    elif last is None or last.kind != "end":
        yield Defect.HUNG, last.offset if last else 0, "did not see the end in time"
    else:
        yield from _check_ending(stream, attempts, events, last)
        yield from _check_acknowledged(stream, events)


def _check_offsets(log: Sequence[Seen]) -> Iterator[_Problem]:
    """Check that offsets come once each, in order, from 1 and without gaps."""
    received: set[int] = set()
    newest = 0
    ended = False
    for event in log:
        if event.offset in received:
            yield Defect.DUPLICATED, event.offset, "was delivered twice"
        elif event.offset < newest:
            yield Defect.REORDERED, event.offset, f"came after offset {newest}"
        elif ended:
            yield Defect.DUPLICATED, event.offset, "came after the end"
        received.add(event.offset)
        newest = max(newest, event.offset)
        ended = ended or event.kind == "end"
    missing = sorted(set(range(1, newest + 1)) - received)
    if missing:
        first, last = missing[0], missing[-1]
        yield Defect.LOST, first, f"{len(missing)} of the offsets {first} to {last} are missing"


def _check_story(
    stream: Stream, attempts: Mapping[int, Attempt], events: Sequence[Seen]
) -> Iterator[_Problem]:
    """Check that attempts follow each other, and the chunks of each come in order and once."""
    attempt = next_seq = before = 0
    for event in events:
        offset = event.offset
        if event.kind == "gap":
            yield Defect.LOST, offset, "a gap was delivered"
        if event.attempt < attempt:
            text = f"attempt {event.attempt} continues after attempt {attempt} took over"
            yield Defect.REORDERED, offset, text
        if event.kind == "reset":
            if stream.policy != "restart":
                yield Defect.DUPLICATED, offset, f"the text starts over with {stream.policy}"
            next_seq = 0
        elif event.kind == "chunk":
            if event.attempt > attempt and attempt and stream.policy == "restart":
                text = f"attempt {event.attempt} continues the text of attempt {attempt}"
                yield Defect.REORDERED, offset, text
            if event.seq < next_seq:
                yield Defect.DUPLICATED, offset, f"seq {event.seq} comes again"
            elif event.seq > next_seq and offset == before + 1:
                yield Defect.LOST, offset, f"seq {event.seq} follows seq {next_seq - 1}"
            yield from _check_chunk(attempts.get(event.attempt), event)
            next_seq = event.seq + 1
        attempt, before = max(attempt, event.attempt), offset


def _check_chunk(attempt: Attempt | None, event: Seen) -> Iterator[_Problem]:
    if attempt is None:
        yield Defect.LOST, event.offset, f"attempt {event.attempt} never opened this stream"
        return
    sent = attempt.sent.get(event.seq)
    if sent == event.digest:
        return
    elsewhere = [seq for seq, known in attempt.sent.items() if known == event.digest]
    if elsewhere:
        text = f"seq {event.seq} has the value of seq {elsewhere[0]} (see {attempt.ledger})"
        yield Defect.REORDERED, event.offset, text
    else:
        text = f"seq {event.seq} has value {event.digest}, sent was {sent} (see {attempt.ledger})"
        yield Defect.LOST, event.offset, text


def _check_ending(
    stream: Stream, attempts: Mapping[int, Attempt], events: Sequence[Seen], end: Seen
) -> Iterator[_Problem]:
    """Check that one whole text follows the last reset."""
    if end.state != "END":
        yield Defect.LOST, end.offset, f"the stream ended {end.state}"
        return
    final = attempts.get(end.attempt)
    if final is None or not final.is_done:
        where = f" (see {final.ledger})" if final else ""
        text = f"attempt {end.attempt} ended the stream and was not done{where}"
        yield Defect.LOST, end.offset, text
    resets = [place for place, event in enumerate(events) if event.kind == "reset"]
    story = [e for e in events[resets[-1] if resets else 0 :] if e.kind == "chunk"]
    if len(story) < stream.chunks:
        text = f"the final text has {len(story)} of {stream.chunks} chunks"
        yield Defect.LOST, end.offset, text
    if len(story) > stream.chunks:
        text = f"the final text has {len(story)} chunks instead of {stream.chunks}"
        yield Defect.DUPLICATED, end.offset, text
    if stream.policy == "restart":
        others = {event.attempt for event in story} - {end.attempt}
        if others:
            text = f"the final text mixes attempt {end.attempt} with {sorted(others)}"
            yield Defect.REORDERED, end.offset, text


def _check_acknowledged(stream: Stream, events: Sequence[Seen]) -> Iterator[_Problem]:
    """Check that every chunk that was acknowledged to an attempt has been delivered."""
    received: dict[int, set[int]] = defaultdict(set)
    for event in events:
        if event.kind == "chunk":
            received[event.attempt].add(event.seq)
    for attempt in stream.attempts:
        if stream.policy == "restart":
            have = received[attempt.number]
        else:
            have = {s for number in received if number <= attempt.number for s in received[number]}
        missing = sorted(set(range(attempt.acknowledged)) - have)
        if missing:
            text = (
                f"seq 0 to {attempt.acknowledged - 1} were acknowledged to attempt "
                f"{attempt.number}; {len(missing)} are missing from {missing[0]} on "
                f"(see {attempt.ledger})"
            )
            yield Defect.LOST, 0, text


def _check_agreement(stream: Stream, readers: Sequence[str]) -> Iterator[Finding]:
    """Check that all readers received the same event at every offset."""
    known: dict[int, tuple[Seen, str]] = {}
    for reader in readers:
        for event in stream.seen.get(reader, []):
            first, other = known.setdefault(event.offset, (event, reader))
            if first != event:
                text = f"{other} got {first}, {reader} got {event}"
                where = f"offset {event.offset}"
                yield Finding(Defect.REORDERED, stream.name, where, text)
                break
