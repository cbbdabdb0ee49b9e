"""Cursors: opaque, URL-safe, scoped to their stream."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq import CursorError, StreamId
from streamq.reading._cursor import Cursor, Progress

STREAM = StreamId("t", "a/b")
uint64 = st.integers(0, 2**64 - 1)
cursors = st.builds(Cursor, st.builds(Progress, uint64, uint64, uint64, uint64), st.text())


@given(cursors)
def test_cursor_survives_the_round_trip_and_a_url(cursor: Cursor) -> None:
    """A cursor travels in URLs, workflow inputs and shell lines without quoting."""
    token = cursor.encode(STREAM)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", token)
    assert Cursor.decode(token, STREAM) == cursor


@given(cursors)
def test_cursor_of_another_stream_is_refused(cursor: Cursor) -> None:
    """Mixing up two streams must not show a user the wrong text."""
    for other in (StreamId("t", "a/c"), StreamId("u", "a/b")):
        with pytest.raises(CursorError, match="another stream"):
            Cursor.decode(cursor.encode(STREAM), other)


@given(st.text(max_size=200))
def test_any_text_that_is_not_a_cursor_is_a_clean_error(text: str) -> None:
    """Cursors come from clients: any text may arrive."""
    with pytest.raises(CursorError):
        Cursor.decode(text, STREAM)


def test_altered_cursor_is_refused() -> None:
    """A truncated or mistyped token must not silently name another place."""
    token = Cursor(Progress(5, 1, 3, 4), "5-3").encode(STREAM)
    inserted = token[:9] + "!" + token[9:]
    for altered in (token[:-1], token[:-4], "B" + token[1:], inserted, token + "AAAA"):
        with pytest.raises(CursorError):
            Cursor.decode(altered, STREAM)
