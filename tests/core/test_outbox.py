"""Tests the outbox: what a batch in flight keeps."""

from __future__ import annotations

from streamq import Encoding, StreamId
from streamq.reading._cursor import Progress
from streamq.writing._outbox import Outbox


def test_batch_in_flight_holds_its_data_once() -> None:
    """Records beside their encoded form would double a writer's memory, outside every bound."""
    outbox = Outbox(
        Progress(1, 1),
        stream=StreamId("t", "s"),
        restarts=False,
        needs_reset=False,
        max_record_bytes=1_000_000,
    )
    outbox.accept(Encoding.BYTES, b"a")
    batch = outbox.pack()
    assert batch is not None
    assert list(batch.records)

    entries = batch.entries()

    assert list(batch.records) == []
    again = outbox.pack()
    assert again is not None
    assert again.entries() == entries
