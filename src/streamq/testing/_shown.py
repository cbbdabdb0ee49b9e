"""Writes values for messages: short, whole where they are small, and the same on each run.

Design: docs/design/testing.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from streamq.driver import Entry, Stored, StreamId, terminal_text

_LONGEST_DATA = 48
_LONGEST_TEXT = 300
_MOST_ITEMS = 12


def shown(value: object, *, most: int = _MOST_ITEMS) -> str:
    """Return a value as messages show it.

    Args:
        value: Any value.
        most: Most items of a list to show.
    """
    match value:
        case bytes() | bytearray():
            data = bytes(value)
            if len(data) <= _LONGEST_DATA:
                return repr(data)
            return f"{data[: _LONGEST_DATA // 2]!r}... ({len(data):,} bytes)"
        case str():
            if len(value) <= _LONGEST_TEXT:
                return repr(value)
            return f"{value[: _LONGEST_TEXT // 2]!r}... ({len(value):,} characters)"
        case StreamId():
            return str(value)
        case Entry():
            return f"Entry({value.epoch}, {value.index}, {shown(value.data)})"
        case Stored():
            return f"Stored({shown(value.position)}, {shown(value.data)})"
        case timedelta():
            return f"{value.total_seconds():g} s"
        case BaseException():
            return f"{type(value).__name__}: {terminal_text(str(value))}"
        case type():
            return value.__name__
        case tuple() if type(value) is not tuple:  # a named one
            return _cut(repr(value))
        case list() | tuple():
            return _items(value, most)
    return _cut(repr(value))


def _items(values: Sequence[object], most: int) -> str:
    opening, closing = "[]" if isinstance(values, list) else "()"
    if len(values) <= most:
        return f"{opening}{', '.join(map(shown, values))}{closing}"
    first = ", ".join(map(shown, values[: most // 2]))
    last = ", ".join(map(shown, values[-(most // 4) :]))
    return f"{opening}{first}, ..., {last}{closing} ({len(values):,} items)"


def _cut(text: str) -> str:
    text = terminal_text(text)
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}..."
