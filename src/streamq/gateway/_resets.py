"""Remembers the last reset of a stream, as far as this process has read the stream.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from streamq._events import EventOrGap, Reset

from ._places import EventPlace


class Resets:
    """What is known of the resets of one stream."""

    def __init__(self) -> None:
        self.last: EventPlace | None = None
        """The last reset that is known."""
        self.is_live = False
        """Whether it came while the stream was read live: then no later one is stored before."""
        self.searched_to = 0
        """Offset of the event up to which a search has found it to be the last one."""

    def note(self, events: Sequence[EventOrGap]) -> None:
        """Note the resets among the next live events."""
        for event in events:
            if isinstance(event, Reset):
                self.last, self.is_live = EventPlace(event.offset, event.epoch), True

    def searched(self, last: EventPlace | None, upto: int) -> None:
        """Note what a search from the beginning to an event has found."""
        if upto > self.searched_to and not self.is_live:
            self.last, self.searched_to = last, upto
