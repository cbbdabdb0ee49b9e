"""Reads places that clients name, and notices those of an earlier stream of the same name.

A place is ``OFFSET@EPOCH``, the ``id`` of an event; ids of older gateways are the offset alone. The
epoch is that of the attempt that wrote the event. Every attempt has an epoch of its own, and a
stream that was deleted and began again has none of its predecessor's.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from streamq._errors import CursorError
from streamq._events import StreamId, place_text
from streamq.records._wire import MAX_EPOCH

from ._error_responses import BadRequestError
from ._frames import Frame

NamedPlace: TypeAlias = Literal["last", "tail"]
"""A place that depends on when it is asked for: before the latest value, or after everything."""

_MAX_DIGITS = 19
_MAX_RUNS = 1_000


@dataclass(frozen=True, slots=True)
class EventPlace:
    """A place that a client named.

    Attributes:
        offset: Offset of the last event that the client has.
        epoch: Epoch of the attempt that wrote it; 0 if the client did not name one.
    """

    offset: int
    epoch: int = 0

    @classmethod
    def parse(cls, name: str, text: str) -> EventPlace:
        """Read the value of a parameter or header.

        Raises:
            BadRequestError: It is no id of an event.
        """
        offset, at, epoch = text.partition("@")
        if not _is_number(offset) or (at and not _is_number(epoch)):
            raise BadRequestError(
                f"{name} is {text[:60]!r}; it has to be the id of an event of this stream, as "
                "17@1764523000000000, or the number in front alone"
            )
        return cls(int(offset), int(epoch or 0))

    def __str__(self) -> str:
        return place_text(self.offset, self.epoch)


def _is_number(text: str) -> bool:
    if not (text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS):
        return False
    return int(text) <= MAX_EPOCH


def began_again(stream: StreamId, place: EventPlace) -> CursorError:
    """Return the error for a place of an earlier stream of the same name."""
    return CursorError(
        f"the place {place} belongs to an earlier stream {stream}, which was deleted or has "
        "expired; the stream of this name began again: read it from the beginning",
        stream=str(stream),
    )


class Epochs:
    """Remembers which attempt wrote which events of a stream, as far as they have been read.

    Args:
        offset: Offset of the event after which reading began.
        epoch: Epoch of that event; 0 if it is not known.
    """

    def __init__(self, offset: int = 0, epoch: int = 0) -> None:
        self._first = [offset]
        self._epoch = [epoch]
        self._offset = offset

    def extend(self, frames: Sequence[Frame]) -> None:
        """Add the events that follow."""
        for frame in frames:
            if frame.epoch != self._epoch[-1]:
                self._first.append(frame.first)
                self._epoch.append(frame.epoch)
            self._offset = frame.offset
        if len(self._first) > _MAX_RUNS:  # attempts without end: the oldest are forgotten
            del self._first[: _MAX_RUNS // 2], self._epoch[: _MAX_RUNS // 2]

    def at(self, offset: int) -> int:
        """Return the epoch of an event; 0 if it is not known."""
        if offset > self._offset:
            return 0
        found = bisect_right(self._first, offset)
        return self._epoch[found - 1] if found else 0
