"""Positions of readers: a segment, and the last entry that was read.

Design: docs/design/s3sns.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from streamq.driver import StreamId, foreign_position

from ._errors import BACKEND
from ._naming import LARGEST_NUMBER


@dataclass(frozen=True, slots=True)
class SegmentPosition:
    """The place where reading continues.

    The identity of the entry keeps the position meaningful after the stream was deleted and written
    anew.

    Attributes:
        number: Number of the segment; 0 for the beginning of the stream.
        key: Epoch and index of the entry that was read last.
    """

    number: int = 0
    key: tuple[int, int] = (0, -1)

    def encode(self) -> str:
        """Return the position as the text that readers get."""
        return f"{self.number}-{self.key[0]}-{self.key[1]}"


def decode_position(position: str, stream: StreamId) -> SegmentPosition:
    """Return the position that a text stands for.

    Raises:
        CursorError: This driver did not make the text.
    """
    if not position:
        return SegmentPosition()
    parts = position.split("-")
    # Bounded before int(): a hostile position must not cost time.
    if len(parts) != 3 or not all(
        part.isascii() and part.isdigit() and len(part) <= 19 for part in parts
    ):
        raise foreign_position(BACKEND, stream, position)
    number, epoch, index = map(int, parts)
    return SegmentPosition(max(1, min(number, LARGEST_NUMBER + 1)), (epoch, index))
