"""Every interleaving of attempts, faults, trimming and readers, and proof that it finds bugs."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from streamq import Chunk, Encoding, Seal, SealState, StreamId, driver
from streamq.reading import _sequencer
from streamq.reading._cursor import Progress
from streamq.records._wire import Record, RecordKind
from streamq.writing import _outbox

from .interleavings import Interleavings, machine

TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(
    max_examples=150,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)


@dataclass(frozen=True)
class Mutation:
    """A bug, as a change of the source, and a seed of the search that finds it soon."""

    module: str
    old: str
    new: str
    seed: int = 7


MODULES = {"sequencer": _sequencer, "outbox": _outbox, "driver": driver}

MUTATIONS = {
    "stale records are delivered": Mutation(
        "sequencer", "if record.epoch < self.epoch:", "if record.epoch < 0:"
    ),
    "a takeover is not counted": Mutation("sequencer", "self.attempt += 1", "pass"),
    "duplicates are delivered again": Mutation(
        "sequencer", "if record.last_offset < expected:", "if record.last_offset < 0:"
    ),
    "the middle of a record is delivered again": Mutation(
        "sequencer", "range(max(expected - first_chunk, 0), ", "range(0, "
    ),
    "one chunk too many is skipped in the middle": Mutation(
        "sequencer", "max(expected - first_chunk, 0)", "max(expected - first, 0)", seed=1
    ),
    "a gap is passed over": Mutation(
        "sequencer", "events.append(self._gap(expected, first - 1, record))", "pass"
    ),
    "the reset is not delivered": Mutation(
        "sequencer", "if record.resets and first >= expected:", "if False:"
    ),
    "the reset is delivered again": Mutation(
        "sequencer", "if record.resets and first >= expected:", "if record.resets:", seed=1
    ),
    "parts of an attempt that died are kept": Mutation(
        "sequencer",
        "        self._early_bytes = 0\n        self._drop_parts()",
        "        self._early_bytes = 0",
    ),
    "a chunk is delivered with a part missing": Mutation(
        "sequencer", "if record.part > len(self._parts):", "if False:"
    ),
    "a repeated part is added": Mutation(
        "sequencer", "and record.part < have):", "and record.part < 0):"
    ),
    "the offset does not grow with a joined chunk": Mutation(
        "sequencer",
        "self.offset, self.next_seq = record.offset, record.seq + 1",
        "self.next_seq = record.seq + 1",
    ),
    "a chunk without its head is passed over": Mutation(
        "sequencer", "events.append(self._gap(record.offset, record.offset, record))", "pass"
    ),
    "a chunk that never became one is missed": Mutation(
        "sequencer",
        "            if record.completes:\n                events.append(self._gap(record",
        "            if True:\n                events.append(self._gap(record",
    ),
    "the tail forgets the attempts that followed": Mutation(
        "sequencer", "for opened in reversed(opens):", "for opened in opens[:0]:"
    ),
    "the tail counts an incomplete chunk": Mutation(
        "sequencer",
        "record.seq + record.completes, record.last_offset",
        "record.seq + 1, record.offset",
    ),
    "the seal ends nothing": Mutation("sequencer", "self.seal = Seal(", "_ = Seal("),
    "offsets start at the wrong place": Mutation(
        "outbox", "self._next_offset = progress.offset + 1", "self._next_offset = 1"
    ),
    "an attempt that restarts continues counting": Mutation(
        "outbox", "self.resumed_from = 0 if restarts else", "self.resumed_from ="
    ),
    "an announcement alone starts over": Mutation(
        "sequencer",
        "self.attempt += 1\n",
        "self.attempt += 1\n        self.next_seq = 0 if record.restarts else self.next_seq\n",
    ),
    "an attempt that resumes starts at 0": Mutation(
        "outbox", "self._sent_seq = self.resumed_from", "self._sent_seq = 0"
    ),
    "the reset is forgotten": Mutation(
        "outbox", "self._resets = restarts and needs_reset", "self._resets = False"
    ),
    "the reset is sent with every record": Mutation(
        "outbox", "resets, self._resets = self._resets, False", "resets = self._resets"
    ),
    "indexes repeat": Mutation("outbox", "self._next_index += 1", "pass"),
    "a batch is packed anew for its repetition": Mutation(
        "outbox", "if self._in_flight is None and self.has_work:", "if self.has_work:"
    ),
    "the seal does not wait for the chunks": Mutation(
        "outbox", "self.seal if not pending and fits else None", "self.seal if fits else None"
    ),
    "the seal is sent before the chunks": Mutation("outbox", "if not entries:", "if self.seal:"),
    "the last part is left out": Mutation(
        "outbox", "for part in range(parts)", "for part in range(parts - 1)"
    ),
    "a part counts as a chunk": Mutation(
        "outbox", "self._sent_seq += record.completes", "self._sent_seq += len(record.chunks)"
    ),
    "replayed chunks are not compared": Mutation(
        "outbox", "if known is not None and known != fingerprint(encoding, data):", "if False:"
    ),
    "replayed chunks are sent again": Mutation(
        "outbox",
        "            self._compare(encoding, data)\n            return\n",
        "            pass\n",
    ),
    "a replay may end early": Mutation(
        "outbox", "if state is SealState.END and self.is_replaying:", "if False:"
    ),
    "the buffer never empties": Mutation(
        "outbox", "self.buffered_bytes -= batch.frees_bytes", "self.buffered_bytes -= 10**9"
    ),
    "a stale attempt may write": Mutation(
        "driver", "if entry.epoch < newest[0]:", "if False:"
    ),
    "repeats are stored twice": Mutation(
        "driver", "if (entry.epoch, entry.index) > newest:", "if True:"
    ),
}  # fmt: skip


REORDERING_MUTATIONS = {
    "early records are forgotten": Mutation("sequencer", "self._early[place] = record", "pass"),
    "early records are never delivered": Mutation(
        "sequencer", "while self._early and self.seal is None:", "while False:"
    ),
    "parts of one chunk replace each other": Mutation(
        "sequencer", "place = record.offset, record.part", "place = record.offset, 0"
    ),
    "an early part is taken for the next": Mutation(
        "sequencer", "record.offset > expected or record.part > have", "record.offset > expected"
    ),
    "an early record stays": Mutation("sequencer", "            del self._early[place]\n", ""),
    "early records of a dead attempt are kept": Mutation(
        "sequencer", "        self._early.clear()\n        self._early_bytes = 0\n", ""
    ),
}


def mutated(mutation: Mutation) -> ModuleType:
    """Return a copy of a module with a bug in it."""
    original = MODULES[mutation.module]
    path = Path(str(original.__file__))
    source = path.read_text()
    assert source.count(mutation.old) >= 1, f"{path.name} has changed: {mutation.old!r} is gone"
    spec = importlib.util.spec_from_loader(original.__name__, loader=None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__package__ = original.__package__
    changed = source.replace(mutation.old, mutation.new)
    exec(compile(changed, str(path), "exec"), module.__dict__)
    return module


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[Record], list[bytes]]:
    """Records of one attempt in any order, some of them more than once, among stale ones.

    An older attempt that died has left records that come at any time, too.
    """
    dead, last = Outbox(1, "x"), Outbox(2, "y")
    sizes = draw(st.lists(st.sampled_from([0, 1, 40, 300]), min_size=1, max_size=6))
    records: list[Record] = []
    for outbox in (dead, last):
        for i, size in enumerate(sizes):
            outbox.send(f"{i}:" + outbox.letter * size)
            if draw(st.booleans()):
                records += outbox.take()
    last.outbox.request_seal(SealState.END)
    records += [*dead.take(), *last.take()]
    records += draw(st.lists(st.sampled_from(records), max_size=4))
    shuffled = draw(st.permutations(records))
    # Without its first record nothing of the dead attempt can be delivered.
    waiting = [r for r in shuffled if r.epoch == 1 and (r.offset, r.part) != (1, 0)]
    before = waiting[: draw(st.integers(0, len(waiting)))]
    return [*before, Record(RecordKind.OPEN, 2, restarts=True), *shuffled], last.sent


class Outbox:
    """An attempt's records, as they would be stored."""

    def __init__(self, epoch: int, letter: str) -> None:
        self.letter = letter
        self.sent: list[bytes] = []
        self.outbox = _outbox.Outbox(
            Progress(epoch, 1),
            stream=StreamId("t", "s"),
            restarts=True,
            needs_reset=False,
            max_record_bytes=200,
        )

    def send(self, text: str) -> None:
        self.sent.append(text.encode())
        self.outbox.accept(Encoding.BYTES, text.encode())

    def take(self) -> list[Record]:
        records: list[Record] = []
        while (batch := self.outbox.pack()) is not None:
            self.outbox.acknowledge()
            records += [Record.decode(entry.data) for entry in batch.entries()]
        return records


def check_reordered(module: ModuleType, delivery: tuple[list[Record], list[bytes]]) -> None:
    records, sent = delivery
    sequencer = module.Sequencer(reorder_bytes=100_000)
    events = [event for record in records for event in sequencer.feed(record)]
    assert [event.data for event in events if isinstance(event, Chunk)] == sent
    assert [event.offset for event in events] == list(range(1, len(sent) + 2))
    assert isinstance(events[-1], Seal)
    assert not sequencer._early, "records that were delivered are still held"


@given(deliveries())
def test_records_in_any_order_give_events_in_order(
    delivery: tuple[list[Record], list[bytes]],
) -> None:
    """Backends without order: every record once, in its place, none of the dead attempt."""
    check_reordered(_sequencer, delivery)


@pytest.mark.parametrize("name", REORDERING_MUTATIONS)
def test_seeded_bug_in_reordering_is_found(name: str) -> None:
    """As below, for code that only an unordered backend needs."""
    buggy = mutated(REORDERING_MUTATIONS[name])
    search = settings(max_examples=1_000, database=None, phases=[Phase.generate], deadline=None)
    with pytest.raises(Exception):  # noqa: B017, PT011 - an assertion, or the buggy code's own
        search(seed(7)(given(deliveries())(lambda delivery: check_reordered(buggy, delivery))))()


def hunt(mutation: Mutation, examples: int) -> None:
    buggy = machine(**{mutation.module: mutated(mutation)})
    run_state_machine_as_test(
        seed(mutation.seed)(buggy),
        settings=settings(
            max_examples=examples,
            stateful_step_count=60,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
            print_blob=False,
            report_multiple_bugs=False,
        ),
    )


@pytest.mark.parametrize("module", MODULES)
def test_copy_without_a_bug_passes(module: str) -> None:
    """The tests below must fail because of the bugs, not because of the way they are inserted."""
    hunt(Mutation(module, "return", "return"), 50)


@pytest.mark.full
@pytest.mark.parametrize("name", MUTATIONS)
def test_seeded_bug_is_found(name: str) -> None:
    """A test against a model proves something only if it fails when the code is wrong."""
    with pytest.raises(Exception):  # noqa: B017, PT011 - an assertion, or the buggy code's own
        hunt(MUTATIONS[name], 1_000)
