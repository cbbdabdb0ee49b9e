"""An append divided into requests: no limit of the server is passed, and nothing is lost."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from streamq.driver import Entry, batches


def entries(*sizes: int, first: int = 1) -> list[Entry]:
    """Return entries of these sizes."""
    return [Entry(1, first + place, b"x" * size) for place, size in enumerate(sizes)]


def divided(found: Sequence[Entry], **limits: int) -> list[list[int]]:
    """Return the sizes of the entries of each request."""
    return [[len(entry.data) for entry in batch] for batch in batches(found, **limits)]


@pytest.mark.parametrize(
    ("sizes", "limits", "expected"),
    [
        ([], {"max_bytes": 10}, []),
        ([4, 6, 1], {"max_bytes": 10}, [[4, 6], [1]]),
        ([4, 4], {"max_bytes": 10, "overhead_bytes": 1}, [[4, 4]]),
        ([4, 4], {"max_bytes": 10, "overhead_bytes": 2}, [[4], [4]]),
        ([1, 1, 1, 0, 1], {"max_bytes": 10, "max_entries": 2}, [[1, 1], [1, 0], [1]]),
        ([3, 11, 3], {"max_bytes": 10}, [[3], [11], [3]]),
    ],
)
def test_each_request_is_as_full_as_the_limits_allow(
    sizes: list[int], limits: dict[str, int], expected: list[list[int]]
) -> None:
    """A request above the limit is refused, and each request more is a round trip more."""
    assert divided(entries(*sizes), **limits) == expected


def test_entry_that_opens_an_epoch_begins_a_request() -> None:
    """A driver makes the epoch known before it, and after what came before."""
    both = [*entries(1, 1), *entries(1, 1, first=0)]
    assert [batch[0].index for batch in batches(both, max_bytes=100)] == [1, 0]
