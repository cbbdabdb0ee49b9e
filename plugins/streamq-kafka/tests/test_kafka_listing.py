"""The entries of the directory: encoding, decoding and merging."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamq_kafka.directory._listing import Listing

LISTINGS = st.builds(
    Listing,
    partition=st.just(3),
    first=st.integers(0, 50),
    epoch=st.integers(1, 50),
    created_ms=st.just(0),
)


@given(st.lists(LISTINGS, min_size=1))
def test_merged_entries_have_the_largest_epoch_and_the_smallest_offset(
    entries: list[Listing],
) -> None:
    """Two processes open one stream at once; the newer attempt wins, and no record is missed."""
    merged = entries[0]
    for entry in entries[1:]:
        merged = merged.merge(entry)
    assert merged.epoch == max(entry.epoch for entry in entries)
    assert merged.first == min(entry.first for entry in entries)
    last = entries[-1]
    assert merged.is_settled == ((last.first, last.epoch) == (merged.first, merged.epoch))


@given(LISTINGS)
def test_entry_is_read_as_it_was_written(entry: Listing) -> None:
    """Every process has to find the same beginning."""
    assert Listing.decode(entry.encode(), 0) == entry


@pytest.mark.parametrize(
    "value",
    [b"", b"{", b"[]", b"{}", b'{"v":2}', b'{"v":1,"partition":-1,"first":0,"epoch":1}', b"\xff"],
)
def test_foreign_entry_is_ignored(value: bytes) -> None:
    """A stray message in the directory must not stop every reader."""
    assert Listing.decode(value, 0) is None
