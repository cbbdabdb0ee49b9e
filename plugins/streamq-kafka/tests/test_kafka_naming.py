"""Keys, partitions and positions, without a broker."""

from __future__ import annotations

import contextlib

from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st
from tests.names import names

from streamq.driver import START, CursorError, StreamId
from streamq_kafka._naming import LogPosition, decode_position, key_of, partition_of, stream_of

STREAM = StreamId("tenant", "name")


@given(st.integers(0, 999_999), st.integers(0, 10**18 - 1))
def test_position_is_decoded_as_it_was_encoded(partition: int, offset: int) -> None:
    """A cursor is used in another process, days later."""
    assert decode_position(LogPosition(partition, offset).encode(), STREAM) == LogPosition(
        partition, offset
    )


@given(st.text())
def test_text_that_is_no_position_is_refused(text: str) -> None:
    """Cursors come from browsers; whatever they contain, the call must not crash."""
    with contextlib.suppress(CursorError):
        assert text == START or decode_position(text, STREAM) is not None


@given(st.binary(min_size=1, max_size=80), st.integers(1, 100))
def test_partition_is_the_one_that_other_clients_choose(key: bytes, partitions: int) -> None:
    """A Kafka Streams job that joins on the key relies on it."""
    numbers = list(range(partitions))
    assert partition_of(key, partitions) == DefaultPartitioner()(key, numbers, numbers)


@given(names)
def test_key_of_any_name_leads_back_to_its_stream(name: str) -> None:
    """Names are workflow ids, which may be anything."""
    stream = StreamId("t", name)
    assert key_of(stream) == f"t/{name}".encode()
    assert stream_of(key_of(stream)) == stream


def test_key_leads_back_to_its_stream() -> None:
    """Listing reads names from keys, and topics may contain keys of other programs."""
    stream = StreamId("tenant", "a/b ü")
    assert stream_of(key_of(stream)) == stream
    assert [stream_of(key) for key in (b"", b"tenant", b"\xff/x", b"ten ant/x")] == [None] * 4
