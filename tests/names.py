"""Generates names of streams for property tests: any text that Temporal takes, and longer."""

from __future__ import annotations

from hypothesis import strategies as st

from streamq._events import STREAM_NAME_BYTES

_CHARACTERS = st.characters(exclude_categories=["Cs"])
_HARD = st.sampled_from([*"%!{}/.~\\\0\n \u3000é", "!!"])


def _long(character: str, size: int, end: str) -> str:
    return character * (size // len(character.encode())) + end


names = st.one_of(
    st.text(_CHARACTERS, min_size=1, max_size=40),
    st.lists(st.one_of(_HARD, _CHARACTERS), min_size=1, max_size=40).map("".join),
    # Around the places where backends begin to cut.
    st.builds(
        _long, _CHARACTERS, st.integers(190, STREAM_NAME_BYTES), st.text(_CHARACTERS, max_size=3)
    ),
).filter(lambda name: 1 <= len(name.encode()) <= STREAM_NAME_BYTES)
"""Names of streams."""
