"""Tests batches of events as plain JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq import (
    Chunk,
    Encoding,
    Event,
    EventOrGap,
    Gap,
    Reset,
    Seal,
    SealState,
    SerializationError,
)
from streamq.records._values import encode_value
from streamq.temporal._event_json import EventPacker, pack, unpack

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=6,
)


@st.composite
def _stories(draw: st.DrawFn) -> list[Event]:
    events: list[Event] = []
    attempt, seq = 1, 0
    for offset in range(1, draw(st.integers(1, 20)) + 1):
        if draw(st.integers(0, 9)) == 0:
            attempt, seq = attempt + 1, 0
            events.append(Reset(offset, attempt))
            continue
        value = draw(_json | st.text(max_size=9) | st.binary(max_size=9))
        events.append(Chunk(offset, attempt, seq, *encode_value(value)))
        seq += 1
    end = Seal(len(events) + 1, attempt, SealState.ERROR, "ModelError", "no more", True)
    return [*events, end]


@given(_stories())
def test_batch_keeps_every_event(events: list[Event]) -> None:
    """Events that passed through Temporal must equal those that a direct reader sees."""
    found = unpack(json.loads(json.dumps(pack(events))))
    assert [event.to_dict() for event in found] == [event.to_dict() for event in events]


def test_chunks_of_a_run_share_one_entry() -> None:
    """The history pays for the values, not for field names around each chunk."""
    chunks = [Chunk(i + 1, 1, i, Encoding.TEXT, b"x" * 100) for i in range(20)]
    [entry] = pack(chunks)
    assert len(json.dumps(entry)) < 1.1 * 100 * 20


def test_gap_in_the_numbers_begins_a_new_entry() -> None:
    """Numbers are counted from the first chunk, so that they must be consecutive."""
    events: list[EventOrGap] = [
        Chunk(1, 1, 0, Encoding.TEXT, b"a"),
        Chunk(2, 2, 0, Encoding.TEXT, b"b"),
        Gap(3, 4, 2),
        Chunk(5, 2, 3, Encoding.TEXT, b"c"),
    ]
    entries = pack(events)
    assert [entry["event"] for entry in entries] == ["chunks", "chunks", "gap", "chunks"]
    assert unpack(entries) == events


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        (Encoding.BYTES, b"\xff\x00"),
        (Encoding.PAYLOAD, b"\n\x04"),
        (Encoding.JSON, b"NaN"),
        (Encoding.JSON, b"{broken"),
        (Encoding.TEXT, b"\xff"),
    ],
)
def test_values_that_are_not_json_pass_as_bytes(encoding: Encoding, data: bytes) -> None:
    """No stored value may make the workflow's poll fail for ever."""
    chunk = Chunk(1, 1, 0, encoding, data)
    assert unpack(json.loads(json.dumps(pack([chunk])))) == [chunk]


def test_half_a_character_in_json_is_replaced() -> None:
    """JSON can express it, UTF-8 cannot; it must not stop the stream."""
    [found] = unpack(pack([Chunk(1, 1, 0, Encoding.JSON, b'"\\ud800"')]))
    assert isinstance(found, Chunk)
    assert found.value == "\ufffd"


def test_batch_stays_below_its_limit() -> None:
    """Temporal refuses payloads above its limit."""
    packer = EventPacker()
    added = 0
    while packer.add(
        Chunk(added + 1, 1, added, Encoding.TEXT, "ü\n".encode() * 50), max_bytes=10_000
    ):
        added += 1
    assert added > 0
    text = json.dumps(packer.entries, separators=(",", ":"))
    assert len(text) <= packer.size <= 10_000


@pytest.mark.parametrize(
    "entry",
    [{}, {"event": "chunks"}, {"event": "song", "offset": 1, "attempt": 1}, "text", None],
)
def test_invalid_batch_is_refused_with_the_value_seen(entry: object) -> None:
    """A signal that was sent by hand must fail with its mistake."""
    with pytest.raises(SerializationError, match="an entry of a batch"):
        unpack([entry])  # type: ignore[list-item]
