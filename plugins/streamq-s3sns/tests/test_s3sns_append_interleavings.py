"""Every interleaving of writers and of their requests' faults; and that a bug would be found."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from s3sns_append_explorer import TTL_MS, Batch, Explorer, World, Writer
from streamq_s3sns.writing import _append

SEAL_TTL_MS = 5 * TTL_MS
SEGMENT_BYTES = _append.SEGMENT_BYTES


def writer(epoch: int, *batches: tuple[int, ...], last_ttl_ms: int = TTL_MS) -> Writer:
    """Return a writer that appends batches, the last one with a time to live."""
    made = [Batch(epoch, indexes) for indexes in batches]
    made[-1] = Batch(epoch, batches[-1], last_ttl_ms)
    return Writer(epoch, tuple(made))


@dataclass(frozen=True)
class Scenario:
    """Writers, and how much may go wrong.

    Attributes:
        writers: The writers.
        faults: How many requests may fail.
        expiries: How often the stream may expire.
        is_cut: Whether an append writes a segment for each entry.
    """

    writers: tuple[Writer, ...]
    faults: int = 0
    expiries: int = 0
    is_cut: bool = False

    def explore(self, module: ModuleType) -> Explorer:
        """Visit every state, with appends of a module."""
        explorer = Explorer(module)
        members = vars(module)
        members["SEGMENT_BYTES"] = 1 if self.is_cut else SEGMENT_BYTES
        try:
            explorer.run(World([each.copy() for each in self.writers], self.faults, self.expiries))
        finally:
            members["SEGMENT_BYTES"] = SEGMENT_BYTES
        return explorer


SCENARIOS = {  # the small ones come first: most bugs are found there
    "a busy stale attempt": Scenario((writer(1, (0,), (1,), (2,), (3,)), writer(2, (0,)))),
    "expiry": Scenario((writer(1, (0,), (1,)), writer(2, (0,))), expiries=1),
    "a time to live of the end": Scenario(
        (writer(1, (0, 1), (1,), last_ttl_ms=SEAL_TTL_MS), writer(2, (0,))), faults=1
    ),
    "several segments in an append": Scenario(
        (writer(1, (0, 1), last_ttl_ms=SEAL_TTL_MS), writer(2, (0, 1))), faults=1, is_cut=True
    ),
    "three attempts": Scenario((writer(1, (0,)), writer(2, (0,)), writer(3, (0,)))),
    "two faults": Scenario((writer(1, (0,)), writer(2, (0,))), faults=2),
    "expiry and faults": Scenario((writer(1, (0,), (1,)),), faults=2, expiries=2),
    "stale and new attempt": Scenario((writer(1, (0,), (1,)), writer(2, (0,), (1,))), faults=1),
    "an append in two queues": Scenario(
        (writer(1, (0,), (1,)), writer(1, (0,), (1,)), writer(2, (0,)))
    ),
}

EVENTS = {
    *("FindEnd", "Write", "ReadWinner", "Announce", "Pause", "Withdraw", "Appended"),
    *("FindEnd fails", "ReadWinner fails"),
    *(f"{step} fails" for step in ("Write", "Announce", "Withdraw")),
    *(f"{step} loses its answer" for step in ("Write", "Announce", "Withdraw")),
    *("Write is delayed", "a write arrives late", "Write is refused without a winner"),
    *("Write, and an announcement is found", "an append begins"),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_promises_hold_in_every_interleaving(name: str) -> None:
    """A race that is lost once in a million appends would lose or repeat a chunk for good."""
    explorer = SCENARIOS[name].explore(_append)
    assert explorer.states > 100
    assert explorer.endings > 0


def test_every_kind_of_event_occurs() -> None:
    """An exploration that never loses an answer would prove nothing about lost answers."""
    assert set(SCENARIOS["stale and new attempt"].explore(_append).events) == EVENTS


MUTATIONS: dict[str, tuple[str, str]] = {
    "the winner is not read": (
        "self.step = ReadWinner(self._base.number + 1)",
        "self._plan(self._base, now_ms)",
    ),
    "the wrong segment is taken for the winner": (
        "ReadWinner(self._base.number + 1)",
        "ReadWinner(max(1, self._base.number))",
    ),
    "the winner's checkpoint is ignored": (
        "            self._plan(self._winner, now_ms)",
        "            self._write(self._winner, self._entries, now_ms)",
    ),
    "a lost race is taken for a won one": ("        if is_won:\n", "        if True:\n"),
    "memory alone decides that entries are stored": (
        "        if fresh:\n            self._write(remembered",
        "        if not fresh:\n            self._finish(remembered)\n"
        "        else:\n            self._write(remembered",
    ),
    "memory is not compared with the clock": (
        "        if _is_expired(remembered, now_ms):\n            return\n",
        "",
    ),
    "an expired stream is continued": (
        "        if _is_expired(newest, now_ms):",
        "        if False:",
    ),
    "a new stream begins at the number of the old one": (
        "Checkpoint(number=newest.number, begin=newest.number + 1)",
        "Checkpoint(number=newest.number, begin=newest.number)",
    ),
    "entries that are stored are stored again": (
        "return new_entries(self._entries, base.newest, backend=BACKEND, stream=self._stream)",
        "return list(self._entries)",
    ),
    "an announcement stops its own epoch": ("if rival > self._epoch:", "if rival >= self._epoch:"),
    "an announcement is not deleted": (
        "Withdraw() if self._is_announced else Appended(checkpoint)",
        "Appended(checkpoint)",
    ),
    "an announcement is repeated for ever": (
        "        self._is_announced = True\n        self._try_again(now_ms)",
        "        self.step = Announce(self._epoch)",
    ),
    "only the first segment is written": (
        "            if self._unwritten:",
        "            if False:",
    ),
    "a segment is written twice": ("        self._unwritten = tuple(others)\n", ""),
    "an end has the time to live of the middle": (
        "if fresh or base.ttl != self._last_ttl_ms:",
        "if fresh:",
    ),
    "the middle has the time to live of the end": (
        "ttl_ms = self._ttl_ms if others else self._last_ttl_ms",
        "ttl_ms = self._last_ttl_ms if others else self._ttl_ms",
    ),
    "a number is left out": ("number=base.number + 1", "number=base.number + 2"),
    "records are not counted": ("records=base.records + len(entries)", "records=base.records"),
    "the newest entry is the first one of its segment": (
        "(entries[-1].epoch, entries[-1].index)",
        "(entries[0].epoch, entries[0].index)",
    ),
    "the result is the state before": (
        "        self._result = checkpoint\n",
        "        self._result = self._base\n",
    ),
}


def mutated(old: str, new: str) -> ModuleType:
    """Return a copy of the module with a bug in it."""
    path = Path(str(_append.__file__))
    source = path.read_text()
    assert source.count(old) == 1, f"{path.name} has changed: {old!r} is not there once"
    spec = importlib.util.spec_from_loader(_append.__name__, loader=None)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    exec(compile(source.replace(old, new), str(path), "exec"), module.__dict__)
    return module


@pytest.mark.parametrize("name", MUTATIONS)
def test_bug_would_be_found(name: str) -> None:
    """An exploration that finds nothing is worth as much as the bugs that it would find."""
    module = mutated(*MUTATIONS[name])
    assert any(_breaks(scenario, module) for scenario in SCENARIOS.values())


def _breaks(scenario: Scenario, module: ModuleType) -> bool:
    try:
        scenario.explore(module)
    except AssertionError:
        return True
    return False
