"""Positions that come back from strangers."""

from __future__ import annotations

import pytest

from streamq.driver import CursorError, StreamId, decode_position, encode_position

STREAM = StreamId("default", "s")
LARGEST = 2**63 - 1


@pytest.mark.parametrize("key", [(1, 0), (LARGEST, LARGEST)])
def test_position_of_a_record_is_read_again(key: tuple[int, int]) -> None:
    """A reader goes on where it was."""
    assert decode_position(encode_position(key), backend="b", stream=STREAM) == key


@pytest.mark.parametrize("position", [f"{LARGEST + 1}-0", "9999999999999999999-0", "1", "-", "٣-٣"])
def test_position_that_no_record_has_is_refused(position: str) -> None:
    """A number that no column holds must not look like a failure of the backend."""
    with pytest.raises(CursorError):
        decode_position(position, backend="b", stream=STREAM)
