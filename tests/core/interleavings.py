"""Explores attempts, takeovers, faults, trimming and readers in any order against a simple model.

Everything is pure: a list is the backend, and hypothesis decides what happens next. The model never
uses offsets or seqs. It knows the chunks that each attempt was given and the order in which records
were stored, and derives the story from them. Every reader has to receive that story."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from streamq import (
    Chunk,
    Encoding,
    Event,
    FencedError,
    Gap,
    OnRetry,
    Reset,
    Seal,
    SealState,
    StreamId,
    TrimmedError,
)
from streamq import driver as real_driver
from streamq._errors import ReplayError
from streamq.driver import Entry
from streamq.reading import _sequencer as real_sequencer
from streamq.reading._cursor import Progress
from streamq.records._wire import Record, RecordKind
from streamq.writing import _outbox as real_outbox
from streamq.writing._replay import Fingerprints, fingerprint

_STREAM = StreamId("t", "s")
_MAX_RECORD_BYTES = 200  # so that values of a few hundred bytes travel in parts
_MOST_ATTEMPTS, _MOST_READERS = 5, 4

_OUTCOMES = ("stored", "stored", "unacknowledged", "prefix", "prefix", "twice")
_SIZES = (0, 1, 40, 100, 130, 300, 300, 600)

_LARGE = st.sampled_from((300, 600))

Item = tuple[str, object]


@dataclass
class Attempt:
    """One run of the producer, and what the model knows of it."""

    epoch: int
    policy: OnRetry
    opening: Entry
    announced: bool = False
    outbox: Any = None
    number: int = 0
    is_over: bool = False
    given: list[bytes] = field(default_factory=list)
    stored: int = 0
    joined: bytes = b""
    known: list[bytes] = field(default_factory=list)
    owes_reset: bool = False
    seal: SealState | None = None


@dataclass
class Reader:
    """A reader: its sequencer, its place in the log, and the places it could go on from."""

    sequencer: Any
    gaps: bool
    at: int = 0
    whole: int = 0
    last: int = 0
    failed: bool = False
    places: list[tuple[Progress, int]] = field(default_factory=list)


class Interleavings(RuleBasedStateMachine):
    """The real modules by default; subclasses put mutated ones in their place."""

    sequencer: ModuleType = real_sequencer
    outbox: ModuleType = real_outbox
    driver: ModuleType = real_driver

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Entry] = []
        self.trimmed = 0  # records removed from the head
        self.item_ends: list[int] = []  # length of the story after each record
        self.story: list[Item] = []
        self.attempts: list[Attempt] = []
        self.readers: list[Reader] = []
        self.opened = 0
        self.counter = 0

    # -- the backend -----------------------------------------------------------------------------

    def append(self, attempt: Attempt, entries: Sequence[Entry]) -> None:
        newest = (self.log[-1].epoch, self.log[-1].index) if self.log else (0, -1)
        fresh = self.driver.new_entries(entries, newest, backend="list", stream=_STREAM)
        for entry in fresh:
            assert all(entry.epoch >= other.epoch for other in self.attempts_stored())
            self.log.append(entry)
            self._tell_model(attempt, Record.decode(entry.data))
            self.item_ends.append(len(self.story))

    def attempts_stored(self) -> list[Entry]:
        return self.log[-1:]

    def _tell_model(self, attempt: Attempt, record: Record) -> None:
        if record.kind is RecordKind.OPEN:
            self.opened += 1
            attempt.number = self.opened
            return
        assert not self.is_sealed, "something was stored behind the seal"
        if attempt.owes_reset:
            assert record.resets, "the first record does not reset earlier attempts"
            attempt.owes_reset = False
            self.story.append(("reset", attempt.number))
        else:
            assert not record.resets
        for _, data in record.chunks:
            attempt.joined += data
            if record.completes:
                assert attempt.joined == attempt.given[attempt.stored]
                self.story.append(("chunk", attempt.joined))
                attempt.stored += 1
                attempt.joined = b""
        if record.seal is not None:
            assert record.seal.state is attempt.seal
            assert attempt.stored == len(attempt.given), "sealed before the last chunk"
            self.story.append(("seal", record.seal.state))

    @property
    def is_sealed(self) -> bool:
        return bool(self.story) and self.story[-1][0] == "seal"

    def current(self) -> list[bytes]:
        """The chunks that count: those after the last reset."""
        resets = [i for i, (kind, _) in enumerate(self.story) if kind == "reset"]
        rest = self.story[resets[-1] :] if resets else self.story
        return [value for kind, value in rest if kind == "chunk" and isinstance(value, bytes)]

    def records(self) -> list[Record]:
        return [Record.decode(entry.data) for entry in self.log[self.trimmed :]]

    @property
    def lost_items(self) -> int:
        """How many items of the story can no longer be read."""
        if not self.trimmed:
            return 0
        lost = self.item_ends[self.trimmed - 1]
        head = Record.decode(self.log[self.trimmed].data)
        if head.part:  # of a chunk that may have been completed
            lost += any(r.epoch == head.epoch and r.completes for r in self.records())
        return lost

    # -- attempts --------------------------------------------------------------------------------

    @precondition(lambda self: len(self.attempts) < _MOST_ATTEMPTS)
    @rule(policy=st.sampled_from(OnRetry), age=st.integers(-15, 20))
    def start_attempt(self, policy: OnRetry, age: int) -> None:
        """A producer is started; it may be older than one that has opened the stream already."""
        epochs = [attempt.epoch for attempt in self.attempts]
        epoch = max(epochs, default=20) + age
        if epoch < 1 or epoch in epochs:
            return
        opening = Record(RecordKind.OPEN, epoch, restarts=policy is OnRetry.RESTART)
        self.attempts.append(Attempt(epoch, policy, Entry(epoch, 0, opening.encode())))

    @initialize(policy=st.sampled_from(OnRetry))
    def begin_first(self, policy: OnRetry) -> None:
        """Most streams begin with one attempt and two readers."""
        self.begin(policy)
        self.open_reader(gaps=False)
        self.open_reader(gaps=True)

    @precondition(lambda self: len(self.attempts) < _MOST_ATTEMPTS and not self.is_sealed)
    @rule(policy=st.sampled_from(OnRetry), after_silence=st.booleans())
    def begin(self, policy: OnRetry, after_silence: bool = False) -> None:
        """A newer attempt takes over without delay, perhaps from one that stored nothing."""
        if after_silence:
            self.begin(OnRetry.RESTART)
        self.start_attempt(policy, age=10)
        self.announce_it(self.attempts[-1])
        self.learn_it(self.attempts[-1])

    @precondition(lambda self: any(not a.announced and not a.is_over for a in self.attempts))
    @rule(data=st.data())
    def announce(self, data: st.DataObject) -> None:
        """Its OPEN reaches the backend, perhaps long after it was started."""
        waiting = [a for a in self.attempts if not a.announced and not a.is_over]
        self.announce_it(data.draw(st.sampled_from(waiting)))

    def announce_it(self, attempt: Attempt) -> None:
        if self.is_sealed:
            attempt.is_over = True
            return
        is_stale = bool(self.log) and self.log[-1].epoch > attempt.epoch
        try:
            self.append(attempt, [attempt.opening])
        except FencedError:
            assert is_stale
            attempt.is_over = True
        else:
            assert not is_stale, "an older attempt opened the stream behind a newer one"
            attempt.announced = True

    @precondition(lambda self: any(a.announced and a.outbox is None for a in self.attempts))
    @rule(data=st.data())
    def learn(self, data: st.DataObject) -> None:
        """It reads the tail, after any number of other things have happened."""
        waiting = [a for a in self.attempts if a.announced and a.outbox is None]
        self.learn_it(data.draw(st.sampled_from(waiting)))

    def learn_it(self, attempt: Attempt) -> None:
        records = self.records()
        state = self.sequencer.fold_tail(reversed(records))
        if state is None:
            state = self.sequencer.Sequencer()
            for record in records:
                state.feed(record)
        if self.is_sealed or self.log[-1] != attempt.opening:
            attempt.outbox = attempt  # never used
            attempt.is_over = True
            return
        assert state.attempt == attempt.number
        assert state.offset == len(self.story)
        restarts = attempt.policy is OnRetry.RESTART
        attempt.owes_reset = restarts and bool(self.story)
        attempt.known = [] if restarts else self.current()
        durable = None
        if attempt.policy is OnRetry.REPLAY:
            durable = self._fingerprints()
        attempt.outbox = self.outbox.Outbox(
            state.progress,
            stream=_STREAM,
            restarts=restarts,
            needs_reset=state.progress.offset > 0,
            max_record_bytes=_MAX_RECORD_BYTES,
            durable=durable,
        )
        if not restarts:
            assert attempt.outbox.resumed_from == len(attempt.known)
        if attempt.policy is OnRetry.RESUME:
            assert attempt.outbox.position == len(attempt.known)

    def _fingerprints(self) -> Fingerprints:
        reader = self.sequencer.Sequencer(gaps_as_events=True)
        found = Fingerprints()
        for record in self.records():
            for event in reader.feed(record):
                if isinstance(event, Chunk):
                    found.add(event.seq, fingerprint(event.encoding, event.data))
                elif isinstance(event, Reset):
                    found.clear()
        return found

    def writing(self) -> list[Attempt]:
        return [a for a in self.attempts if a.outbox is not None and not a.is_over]

    @precondition(lambda self: self.writing())
    @rule(data=st.data(), sizes=st.lists(st.sampled_from(_SIZES), max_size=4))
    def send(self, data: st.DataObject, sizes: list[int]) -> None:
        """It sends chunks, larger and smaller than a record."""
        self.send_to(data.draw(st.sampled_from(self.writing())), sizes)

    def send_to(self, attempt: Attempt, sizes: list[int]) -> None:
        for size in sizes:
            if attempt.seal is not None:
                return
            self.counter += 1
            value = f"{self.counter}:".encode() + b"x" * size
            if attempt.outbox.is_replaying:
                value = attempt.known[attempt.outbox.position]
            else:
                attempt.given.append(value)
            attempt.outbox.accept(Encoding.BYTES, value)

    @precondition(lambda self: any(a.outbox.is_replaying for a in self.writing()))
    @rule(data=st.data())
    def replay_wrongly(self, data: st.DataObject) -> None:
        """A chunk that differs is refused, unless the stored one was trimmed."""
        replaying = [a for a in self.writing() if a.outbox.is_replaying and a.seal is None]
        if not replaying:
            return
        attempt = data.draw(st.sampled_from(replaying))
        position = attempt.outbox.position
        must_raise(ReplayError, lambda: attempt.outbox.request_seal(SealState.END))
        if attempt.outbox._durable.get(position) is not None:
            wrong = b"something else"
            must_raise(ReplayError, lambda: attempt.outbox.accept(Encoding.BYTES, wrong))
            assert attempt.outbox.position == position

    @precondition(lambda self: self.writing())
    @rule(data=st.data(), state=st.sampled_from(SealState), message=st.sampled_from(["", "m" * 30]))
    def ask_seal(self, data: st.DataObject, state: SealState, message: str) -> None:
        """It ends, one way or another."""
        attempt = data.draw(st.sampled_from(self.writing()))
        if attempt.seal is None and not (state is SealState.END and attempt.outbox.is_replaying):
            attempt.outbox.request_seal(state, message=message)
            attempt.seal = state

    @precondition(lambda self: any(a.outbox.has_work for a in self.writing()))
    @rule(
        data=st.data(),
        outcome=st.sampled_from(_OUTCOMES),
    )
    def store(self, data: st.DataObject, outcome: str) -> None:
        """A batch goes to the backend; the answer may be lost, or come after a part of it."""
        attempt = data.draw(st.sampled_from([a for a in self.writing() if a.outbox.has_work]))
        self.store_of(attempt, outcome, data)

    @precondition(lambda self: self.writing())
    @rule(
        data=st.data(),
        sizes=st.lists(st.sampled_from(_SIZES), min_size=1, max_size=4),
        outcome=st.sampled_from(_OUTCOMES),
    )
    def send_and_store(self, data: st.DataObject, sizes: list[int], outcome: str) -> None:
        """The newest writer continues its work."""
        attempt = self.writing()[-1]
        self.send_to(attempt, sizes)
        if attempt.outbox.has_work:
            self.store_of(attempt, outcome, data)

    @precondition(lambda self: self.writing() and len(self.attempts) < _MOST_ATTEMPTS)
    @rule(
        policy=st.sampled_from(OnRetry), size=st.sampled_from([300, 600]), parts=st.integers(1, 4)
    )
    def die_within_a_large_chunk(self, policy: OnRetry, size: int, parts: int) -> None:
        """Some of its parts are stored when the next attempt takes over."""
        attempt = self.writing()[-1]
        self.send_to(attempt, [size])
        batch = attempt.outbox.pack()
        if batch is not None and self.log[-1].epoch == attempt.epoch:
            self.append(attempt, batch.entries()[:parts])
        if not self.is_sealed:
            self.begin(policy)
            self.send_to(self.attempts[-1], [size])

    def store_of(self, attempt: Attempt, outcome: str, data: st.DataObject) -> None:
        batch = attempt.outbox.pack()
        entries = batch.entries()
        if outcome == "prefix":
            entries = entries[: data.draw(st.integers(0, len(entries)))]
        is_stale = self.log[-1].epoch > attempt.epoch
        try:
            for _ in range(2 if outcome == "twice" else 1):
                self.append(attempt, entries)
        except FencedError:
            assert is_stale
            attempt.is_over = True
            return
        assert not is_stale or not entries, "a stale attempt got no error that it is fenced"
        if outcome in ("stored", "twice"):
            attempt.outbox.acknowledge()
            # A chunk counts as durable once it can be read, so not before its last part.
            first = 0 if attempt.policy is OnRetry.RESTART else len(attempt.known)
            assert attempt.outbox.durable_seq == first + attempt.stored
            assert attempt.outbox.buffered_bytes >= 0
            if attempt.outbox.is_sealed:
                attempt.is_over = True

    @precondition(lambda self: len(self.log) - self.trimmed > 1)
    @rule(data=st.data())
    def trim(self, data: st.DataObject) -> None:
        """Retention removes the oldest records, but never all from which the end can be derived."""
        records = self.records()
        newest = [i for i, record in enumerate(records) if record.kind is RecordKind.DATA]
        if newest and newest[-1]:
            self.trimmed += data.draw(st.integers(1, newest[-1]))

    # -- readers ---------------------------------------------------------------------------------

    @precondition(lambda self: len(self.readers) < _MOST_READERS)
    @rule(gaps=st.booleans())
    def open_reader(self, gaps: bool) -> None:
        """A reader comes, early or late."""
        self.readers.append(Reader(self.sequencer.Sequencer(gaps_as_events=gaps), gaps))

    @precondition(lambda self: self.readers)
    @rule(data=st.data(), count=st.integers(1, 6))
    def read(self, data: st.DataObject, count: int) -> None:
        """It reads on, as far as there is something."""
        self.read_on(data.draw(st.sampled_from(self.readers)), count)

    def read_on(self, reader: Reader, count: int) -> None:
        for _ in range(count):
            if reader.failed or reader.at >= len(self.log):
                return
            reader.at = max(reader.at, self.trimmed)
            if reader.at >= len(self.log):
                return
            before = reader.whole
            record = Record.decode(self.log[reader.at].data)
            try:
                events = reader.sequencer.feed(record)
            except TrimmedError as exc:
                assert not reader.gaps
                assert reader.last < self.lost_items, "nothing is missing"
                reader.failed = exc.oldest > reader.last + 1
                assert reader.failed
                return
            reader.at += 1
            if not reader.sequencer.holds_back:
                reader.whole = reader.at
            for i, event in enumerate(events):
                self._check(reader, event)
                position = reader.whole if i == len(events) - 1 else before
                next_seq = event.seq + 1 if isinstance(event, Chunk) else 0
                if not isinstance(event, Seal):
                    progress = Progress(
                        reader.sequencer.epoch, event.attempt, next_seq, event.offset
                    )
                    reader.places.append((progress, position))

    def _check(self, reader: Reader, event: Event) -> None:
        if isinstance(event, Gap):
            assert reader.gaps
            assert event.first == reader.last + 1
            assert event.offset <= self.lost_items, "a gap hides what is still stored"
            reader.last = event.offset
            return
        assert event.offset == reader.last + 1
        reader.last = event.offset
        kind, value = self.story[event.offset - 1]
        match event:
            case Chunk():
                assert (kind, value) == ("chunk", event.data)
            case Reset():
                assert (kind, value) == ("reset", event.attempt)
            case Seal():
                assert (kind, value) == ("seal", event.state)

    @precondition(lambda self: any(r.at > self.trimmed for r in self.readers))
    @rule(data=st.data())
    def deliver_again(self, data: st.DataObject) -> None:
        """The transport brings old records once more: nothing may come of it."""
        reader = data.draw(st.sampled_from([r for r in self.readers if r.at > self.trimmed]))
        if reader.failed:
            return
        again = data.draw(st.integers(self.trimmed, reader.at - 1))
        before = reader.sequencer.progress
        assert reader.sequencer.feed(Record.decode(self.log[again].data)) == []
        assert reader.sequencer.progress == before

    @precondition(lambda self: any(r.places for r in self.readers))
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        """A reader goes away and comes back with a cursor, to any place it has been."""
        reader = data.draw(st.sampled_from([r for r in self.readers if r.places]))
        progress, position = data.draw(st.sampled_from(reader.places))
        self.readers.append(self._returning(reader, progress, position))
        self.readers.remove(reader)

    def _returning(self, reader: Reader, progress: Progress, position: int) -> Reader:
        sequencer = self.sequencer.Sequencer(progress, gaps_as_events=reader.gaps)
        return Reader(sequencer, reader.gaps, position, position, progress.offset)

    def teardown(self) -> None:
        """In the end every reader has the whole story, or says what is missing."""
        self.readers.append(Reader(self.sequencer.Sequencer(), gaps=False))
        self.readers.append(Reader(self.sequencer.Sequencer(gaps_as_events=True), gaps=True))
        for reader in self.readers:
            self.read_on(reader, len(self.log) + 1)
        newest = self.readers[-1]  # it has been everywhere
        returning = [self._returning(newest, *place) for place in newest.places]
        for reader in [*self.readers, *returning]:
            self.read_on(reader, len(self.log) + 1)
            if reader.failed:
                continue
            assert reader.last == len(self.story), "a reader misses the end of the story"
            assert (reader.sequencer.seal is not None) == self.is_sealed
        if not newest.failed:
            for record in self.records():
                assert newest.sequencer.feed(record) == []
                assert newest.sequencer.offset == len(self.story)
        fresh = self.readers[-2]
        assert fresh.failed == (self.lost_items > 0)


def must_raise(error: type[Exception], call: Callable[[], object]) -> None:
    """Like ``pytest.raises``, but its own failure is an ``Exception``."""
    with contextlib.suppress(error):
        call()
        raise AssertionError(f"no {error.__name__}")


def machine(**modules: ModuleType) -> type[Interleavings]:
    """Return the machine with other modules in place of the real ones."""
    return type("Mutated", (Interleavings,), modules)
