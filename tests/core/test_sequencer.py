"""The sequencer as a pure state machine, case by case and against a model."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq import (
    Chunk,
    CursorError,
    Encoding,
    EventOrGap,
    Gap,
    Reset,
    Seal,
    SealState,
    TrimmedError,
)
from streamq.reading._cursor import Progress
from streamq.reading._sequencer import Sequencer, fold_tail
from streamq.records._wire import Record, RecordKind, SealBody

END = SealBody(SealState.END)


def opened(epoch: int, restarts: bool = True) -> Record:
    return Record(RecordKind.OPEN, epoch, restarts)


def data(
    epoch: int,
    attempt: int,
    seq: int,
    offset: int,
    *texts: str,
    seal: SealBody | None = None,
    restarts: bool = True,
    resets: bool = False,
) -> Record:
    chunks = tuple((Encoding.TEXT, text.encode()) for text in texts)
    return Record(RecordKind.DATA, epoch, restarts, attempt, seq, offset, chunks, seal, resets)


def feed_all(sequencer: Sequencer, *records: Record) -> list[str]:
    """Events in a short form: ``3a`` is chunk "a" at offset 3."""
    short = []
    for record in records:
        for event in sequencer.feed(record):
            match event:
                case Chunk():
                    short.append(f"{event.offset}{event.value}")
                case Reset():
                    short.append(f"{event.offset}R{event.attempt}")
                case Gap():
                    short.append(f"{event.first}-{event.offset}G{event.attempt}")
                case Seal():
                    short.append(f"{event.offset}{event.state.name}")
    return short


def test_chunks_come_once_and_in_order() -> None:
    """The plain case: one attempt, packed records, one of them delivered twice."""
    sequencer = Sequencer()
    first, second = data(1, 1, 0, 1, "a", "b"), data(1, 1, 2, 3, "c", seal=END)
    assert feed_all(sequencer, opened(1), first, first, second) == ["1a", "2b", "3c", "4END"]
    assert sequencer.duplicate_records == 1


def test_overlapping_record_gives_only_new_events() -> None:
    """A record packed again differently, or resumed in its middle, must not repeat a chunk."""
    sequencer = Sequencer()
    overlap = data(1, 1, 1, 2, "b", "c")
    assert feed_all(sequencer, data(1, 1, 0, 1, "a", "b"), overlap) == ["1a", "2b", "3c"]


def test_new_attempt_that_restarts_gives_a_reset_and_stale_records_are_dropped() -> None:
    """A retried activity must not deliver its story twice, nor mix two stories."""
    sequencer = Sequencer()
    events = feed_all(
        sequencer,
        opened(1),
        data(1, 1, 0, 1, "a", "b"),
        opened(2),
        data(1, 1, 2, 3, "stale"),
        data(2, 2, 0, 3, "A", resets=True, seal=END),
    )
    assert events == ["1a", "2b", "3R2", "4A", "5END"]
    assert sequencer.stale_records == 1


def test_reset_may_come_alone_before_the_first_chunk() -> None:
    """A new attempt that works for a while is announced to its readers at once."""
    sequencer = Sequencer()
    alone = data(2, 2, 0, 2, resets=True)
    events = feed_all(sequencer, data(1, 1, 0, 1, "a"), opened(2), alone, data(2, 2, 0, 3, "A"))
    assert events == ["1a", "2R2", "3A"]


def test_takeover_before_any_event_gives_no_reset() -> None:
    """There is nothing to void yet, so no reset; the attempt is counted all the same."""
    sequencer = Sequencer()
    assert feed_all(sequencer, opened(1), opened(2), data(2, 2, 0, 1, "A")) == ["1A"]
    assert sequencer.attempt == 2


def test_new_attempt_that_resumes_continues_without_a_reset() -> None:
    """With resume the reader sees one story, sent by two attempts."""
    sequencer = Sequencer()
    events = feed_all(
        sequencer,
        opened(1, restarts=False),
        data(1, 1, 0, 1, "a", restarts=False),
        opened(2, restarts=False),
        data(2, 2, 1, 2, "b", restarts=False),
    )
    assert events == ["1a", "2b"]
    assert sequencer.attempt == 2


def test_repeated_announcement_counts_once() -> None:
    """An OPEN whose acknowledgement was lost is stored again by some backends."""
    sequencer = Sequencer()
    assert feed_all(sequencer, opened(1), opened(1), data(1, 1, 0, 1, "a"), opened(1)) == ["1a"]
    assert sequencer.attempt == 1


def test_there_are_no_events_after_the_seal() -> None:
    """A stream ends once; a later attempt does not reopen it for any reader."""
    sequencer = Sequencer()
    assert feed_all(sequencer, data(1, 1, 0, 1, "a", seal=END)) == ["1a", "2END"]
    assert feed_all(sequencer, opened(2), data(2, 2, 0, 4, "b")) == []


def test_first_attempt_of_a_stream_does_not_continue_another_one() -> None:
    """Records that count from their opening would pass for the next ones of a deleted stream."""
    sequencer = Sequencer(relative=True)
    assert feed_all(sequencer, opened(1), data(1, 1, 0, 1, "a", "b")) == ["1a", "2b"]
    later = Sequencer(sequencer.progress, relative=True)
    for each in (sequencer, later):
        feed_all(each, opened(2))
        before = each.progress
        for _ in range(2):
            with pytest.raises(CursorError, match="epoch 2 is the first of its stream"):
                feed_all(each, data(2, 1, 0, 1, "A", seal=END))
        assert each.progress == before
    resetting = data(3, 2, 0, 1, "A", resets=True)
    assert feed_all(later, opened(3), resetting) == ["3R3", "4A"]


def test_missing_events_raise_and_leave_the_state_untouched() -> None:
    """Trimmed history is an error that names what can still be read, every time."""
    sequencer = Sequencer()
    feed_all(sequencer, data(1, 1, 0, 1, "a"))
    for _ in range(2):
        with pytest.raises(TrimmedError, match="events 2 to 4") as caught:
            sequencer.feed(data(1, 1, 4, 5, "e"))
        assert caught.value.oldest == 5
    assert sequencer.progress == Progress(1, 1, 1, 1)


def test_missing_events_are_a_gap_for_readers_that_request_it() -> None:
    """A viewer may prefer to continue, but must be able to show what is missing."""
    sequencer = Sequencer(gaps_as_events=True)
    records = data(1, 1, 0, 1, "a"), data(1, 1, 4, 5, "e"), data(1, 1, 5, 6, "f")
    assert feed_all(sequencer, *records) == ["1a", "2-4G1", "5e", "6f"]


def test_reset_lost_in_a_gap_is_part_of_the_gap() -> None:
    """A reset at a guessed offset would have different offsets for different readers."""
    sequencer = Sequencer(gaps_as_events=True)
    records = data(1, 1, 0, 1, "a"), opened(2), data(2, 2, 3, 9, "D")
    assert feed_all(sequencer, *records) == ["1a", "2-8G2", "9D"]


def test_reset_after_a_gap_keeps_its_own_number() -> None:
    """The offset of a reset is stored with it, so that a gap before it cannot shift it."""
    sequencer = Sequencer(Progress(1, 1, 5, 5), gaps_as_events=True)
    events = feed_all(sequencer, opened(2), data(2, 2, 0, 11, "A", resets=True))
    assert events == ["6-10G2", "11R2", "12A"]


def test_trimmed_head_is_noticed_from_the_beginning() -> None:
    """Reading "from the beginning" of a trimmed stream must not pass for the whole story."""
    with pytest.raises(TrimmedError) as caught:
        Sequencer().feed(data(1, 1, 6, 7, "g"))
    assert caught.value.oldest == 7


def test_stream_that_began_again_is_not_taken_for_the_old_one() -> None:
    """After deletion or expiry a name may be used again; an old cursor must be refused."""
    sequencer = Sequencer(Progress(1, 1, 5, 5))
    sequencer.feed(opened(9))
    with pytest.raises(CursorError, match="began again"):
        sequencer.feed(data(9, 1, 0, 1, "new"))


def test_early_records_wait_where_the_backend_may_reorder() -> None:
    """A standard SQS queue delivers in any order; the reader must not see that."""
    sequencer = Sequencer(reorder_bytes=10_000)
    records = [data(1, 1, i, i + 1, str(i)) for i in range(4)]
    assert feed_all(sequencer, records[2], records[3], records[0]) == ["10"]
    assert feed_all(sequencer, records[1]) == ["21", "32", "43"]


def test_early_records_are_bounded() -> None:
    """A loss that never heals must surface, not grow without bound."""
    sequencer = Sequencer(reorder_bytes=200)
    sequencer.feed(data(1, 1, 5, 6, "x" * 100))
    with pytest.raises(TrimmedError, match="events 1 to 5 have not come before 2 later records"):
        sequencer.feed(data(1, 1, 6, 7, "x" * 100))


def test_records_acknowledged_by_another_reader_have_a_message_of_their_own() -> None:
    """Where each record goes to one reader, a second reader is a likelier cause than retention."""
    sequencer = Sequencer(relative=True)
    with pytest.raises(TrimmedError, match="another reader has acknowledged them"):
        sequencer.feed(data(1, 1, 3, 4, "x"))


# --- against a model -------------------------------------------------------------------------


@dataclass
class Log:
    """A log as a fencing backend keeps it, with the events that every reader must see."""

    records: list[Record] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    sealed: bool = False


@st.composite
def logs(draw: st.DrawFn) -> Log:
    """Any number of attempts with any packing, some resuming, perhaps sealed.

    An attempt may die before it has stored its reset; then no reader learns of it.
    """
    log = Log()
    offset = next_seq = 0
    attempts = draw(st.integers(1, 4))
    for attempt in range(1, attempts + 1):
        epoch = attempt * 10
        restarts = draw(st.booleans())
        log.records.append(opened(epoch, restarts))
        sizes = draw(st.lists(st.integers(1, 4), max_size=3))
        sealed = attempt == attempts and draw(st.booleans())
        resets = restarts and offset > 0
        if resets and draw(st.booleans()):
            sizes.insert(0, 0)  # the reset in a record of its own
        if restarts:
            next_seq = 0
        for i, size in enumerate([*sizes, 0] if sealed else sizes):
            texts = [f"c{attempt}.{next_seq + j}" for j in range(size)]
            seal = END if sealed and i == len(sizes) else None
            log.records.append(
                data(
                    epoch,
                    attempt,
                    next_seq,
                    offset + 1,
                    *texts,
                    seal=seal,
                    restarts=restarts,
                    resets=resets,
                )
            )
            if resets:
                offset += 1
                log.events.append(f"{offset}R{attempt}")
                resets = False
            for text in texts:
                offset += 1
                log.events.append(f"{offset}{text}")
            next_seq += size
        if sealed:
            log.events.append(f"{offset + 1}END")
            log.sealed = True
    return log


@given(logs(), st.data())
def test_duplicates_and_stale_repeats_change_nothing(log: Log, draw: st.DataObject) -> None:
    """However often old records appear again, every reader sees the same events."""
    sequencer = Sequencer()
    seen: list[str] = []
    for i, record in enumerate(log.records):
        seen += feed_all(sequencer, record)
        if draw.draw(st.booleans()):
            seen += feed_all(sequencer, log.records[draw.draw(st.integers(0, i))])
    assert seen == log.events


@given(logs(), st.data())
def test_resuming_at_any_event_continues_with_the_next(log: Log, draw: st.DataObject) -> None:
    """A cursor taken after any event, even inside a packed record, loses and repeats nothing."""
    # The place after the seal is never handed out: a reader's cursor stays before it.
    place = draw.draw(st.integers(0, len(log.events) - log.sealed))
    first = Sequencer()
    delivered: list[tuple[EventOrGap, int, int]] = []
    for i, record in enumerate(log.records):
        for event in first.feed(record):
            delivered.append((event, first.epoch, i))
    if place:
        event, epoch, i = delivered[place - 1]
        next_seq = event.seq + 1 if isinstance(event, Chunk) else 0
        resumed = Sequencer(Progress(epoch, event.attempt, next_seq, event.offset))
        rest = log.records[i:]
    else:
        resumed, rest = Sequencer(), log.records
    assert feed_all(resumed, *rest) == log.events[place:]


@given(logs())
def test_tail_alone_gives_the_state_of_the_stream(log: Log) -> None:
    """A writer that takes over must count exactly as a reader of all records would."""
    reader = Sequencer()
    for record in log.records:
        reader.feed(record)
    state = fold_tail(reversed(log.records))
    if state is None:
        assert all(record.kind is RecordKind.OPEN for record in log.records)
        return
    assert state.progress == reader.progress
    assert state.seal == reader.seal


@given(logs(), st.data())
def test_trimming_is_never_silent(log: Log, draw: st.DataObject) -> None:
    """With any head cut off a reader raises, or returns a gap that accounts for every offset."""
    cut = draw.draw(st.integers(0, len(log.records)))
    sequencer = Sequencer(gaps_as_events=True)
    offsets: list[int] = []
    for record in log.records[cut:]:
        for event in sequencer.feed(record):
            first = event.first if isinstance(event, Gap) else event.offset
            offsets += range(first, event.offset + 1)
    assert offsets == list(range(1, len(offsets) + 1))
