"""Describes the difference of two sequences in words, and guesses the fault of a driver from it.

Design: docs/design/testing.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from streamq.testing._shown import shown

_MOST_NAMED = 3


def difference(seen: Sequence[object], expected: Sequence[object]) -> tuple[str, str]:
    """Return how two sequences differ, in words, and what such a difference of records suggests."""
    have, want = Counter(map(_key, seen)), Counter(map(_key, expected))
    missing = [each for each in expected if have[_key(each)] < want[_key(each)]]
    added = [each for each in seen if have[_key(each)] > want[_key(each)]]
    if not missing and not added:
        at = _first_difference(seen, expected)
        return (
            f"the same items in another order, from place {at + 1}: {shown(seen[at])} instead of "
            f"{shown(expected[at])}",
            "records are sorted by something else than the order of their appends, such as numbers "
            "that are compared as text or the clocks of several writers; or two appends overtook "
            "each other",
        )
    if missing and not added:
        return _missing(seen, expected, missing)
    if not missing:
        return _added(seen, added, want)
    at = _first_difference(seen, expected)
    return (
        f"they differ from place {at + 1} on: {_names(added, 'added')}, {_names(missing)}",
        "the records of another stream, of a stale attempt or of a deleted predecessor are among "
        "them, or stored bytes were altered (encoded, cut, or joined)",
    )


def _missing(
    seen: Sequence[object], expected: Sequence[object], missing: Sequence[object]
) -> tuple[str, str]:
    if not seen:
        return (
            f"nothing came, and {len(expected):,} item{'s' if len(expected) > 1 else ''} should",
            "the read looks in another place than the append stored in, does not see what another "
            "connection has stored, or hides records that it should return",
        )
    if list(seen) == list(expected[: len(seen)]):
        return (
            f"the last {len(missing):,} {_items(missing)} missing: {_names(missing, '')}",
            "a page or a limit of the backend was taken for the end of the stream; or the newest "
            "records are not visible yet when the append has returned",
        )
    if list(seen) == list(expected[-len(seen) :]):
        return (
            f"the first {len(missing):,} {_items(missing)} missing: {_names(missing, '')}",
            "reading began after the first records: the position is counted from 1 instead of 0, "
            "or a new reader begins at the newest record; or an append replaced the stream",
        )
    return (
        f"{_names(missing)}, between others",
        "an append stores only a part of its entries, or skips new ones as repeats; or a read that "
        "continues after a page begins too far",
    )


def _added(
    seen: Sequence[object], added: Sequence[object], want: Counter[str | bytes]
) -> tuple[str, str]:
    twice = [each for each in added if want[_key(each)]]
    if len(twice) == len(added):
        named = ", ".join(dict.fromkeys(map(shown, twice[:_MOST_NAMED])))
        return (
            f"repeated: {named}" + (", ..." if len(twice) > _MOST_NAMED else ""),
            "an entry that was stored already is stored again instead of skipped; or a page begins "
            "with the last record of the page before",
        )
    return (
        _names([each for each in added if not want[_key(each)]], "not expected"),
        "the records of another stream, of a stale attempt or of a deleted predecessor are among "
        "them",
    )


def _names(items: Sequence[object], what: str = "missing") -> str:
    named = ", ".join(map(shown, items[:_MOST_NAMED]))
    more = f" and {len(items) - _MOST_NAMED:,} more" if len(items) > _MOST_NAMED else ""
    return f"{what}: {named}{more}" if what else f"{named}{more}"


def _items(items: Sequence[object]) -> str:
    return "item is" if len(items) == 1 else "items are"


def _first_difference(seen: Sequence[object], expected: Sequence[object]) -> int:
    pairs = enumerate(zip(seen, expected, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(seen), len(expected)))


def _key(item: object) -> str | bytes:
    return item if isinstance(item, bytes) else repr(item)
