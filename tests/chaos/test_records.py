"""The records of a run, of backends that do not fence or number attempts as others do."""

from __future__ import annotations

from pathlib import Path

import pytest

from ._ledger import Ledger
from ._records import read_records
from ._setup import Setup


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    """The files of a stream whose first attempt went on after the second one had begun."""
    setup = Setup(
        directory=tmp_path,
        temporal_address="",
        worker_temporal_addresses={},
        worker_settings={},
        reader_settings={},
        credentials_file=None,
        gateway_port=0,
        http_port=0,
    )
    setup.attempts_directory.mkdir()
    with Ledger(setup.streams_path) as streams:
        streams.write(t="stream", s="a", plan={"policy": "restart", "chunks": 9})
    with Ledger(setup.attempts_directory / "worker-1.jsonl") as first:
        first.write(t="open", s="a", e=1, a=1, n=0, discards=False, began=100.0)
        first.write(t="ack", s="a", e=1, n=3, at=101.0)
        first.write(t="ack", s="a", e=1, n=7, at=105.0)
    with Ledger(setup.attempts_directory / "worker-2.jsonl") as second:
        second.write(t="open", s="a", e=2, a=2, n=0, discards=False, began=104.0)
        second.write(t="ack", s="a", e=2, n=5, at=106.0)
    return setup


@pytest.mark.parametrize(("is_fenced", "acknowledged"), [(True, [7, 5]), (False, [3, 5])])
def test_acknowledgements_to_a_stale_attempt_count_only_with_a_fence(
    setup: Setup, is_fenced: bool, acknowledged: list[int]
) -> None:
    """Without one, its chunks are acknowledged and dropped; earlier ones must not get lost."""
    (stream,) = read_records(setup, (), {}, is_fenced=is_fenced)
    assert [attempt.acknowledged for attempt in stream.attempts] == acknowledged


def test_attempts_are_recognised_by_their_chunks(setup: Setup) -> None:
    """On SQS writers count an attempt that died before its first message; the reader does not."""
    for name, epoch, value in (("worker-1", 1, "x"), ("worker-2", 2, "y")):
        with Ledger(setup.attempts_directory / f"{name}.jsonl") as ledger:
            ledger.write(t="send", s="a", e=epoch, n=0, d=value)
    with Ledger(setup.reader_path("poll-1")) as log:
        log.write(s="a", k="chunk", o=1, a=1, n=0, d="y")
    (stream,) = read_records(setup, ("poll-1",), {}, is_fenced=False, agrees_on_numbers=False)
    assert {attempt.epoch: attempt.number for attempt in stream.attempts} == {1: -1, 2: 1}


def test_attempts_after_the_end_are_left_out(setup: Setup) -> None:
    """One that ended the stream may die before Temporal knows; nobody reads the next one."""
    with Ledger(setup.attempts_directory / "worker-1.jsonl") as ledger:
        ledger.write(t="send", s="a", e=1, n=0, d="x")
    with Ledger(setup.reader_path("poll-1")) as log:
        log.write(s="a", k="chunk", o=1, a=1, n=0, d="x")
        log.write(s="a", k="end", o=2, a=1, state="END")
    (stream,) = read_records(setup, ("poll-1",), {}, is_fenced=False, agrees_on_numbers=False)
    assert [attempt.epoch for attempt in stream.attempts] == [1]
