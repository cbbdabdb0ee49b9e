"""Encodes positions for drivers that find records by ``(epoch, index)``.

Design: docs/design/contract.md.
"""

from __future__ import annotations

from streamq._events import StreamId

from ._usual_errors import foreign_position

Key = tuple[int, int]
_LARGEST = 2**63 - 1
BEFORE_ALL: Key = (0, 0)  # epochs start at 1


def encode_position(key: Key) -> str:
    """Return the position of the record ``(epoch, index)``."""
    return f"{key[0]}-{key[1]}"


def decode_position(position: str, *, backend: str, stream: StreamId) -> Key:
    """Return the ``(epoch, index)`` of a position, or :data:`BEFORE_ALL` for the start.

    The pair identifies a record; it is not a place in a file. So the position stays valid when the
    stream is deleted and created again: records of a newer epoch come after it.

    Raises:
        CursorError: The position was not made by this driver.
    """
    if not position:
        return BEFORE_ALL
    epoch, _, index = position.partition("-")
    # Bounded before int(): a hostile position must not cost time or overflow a column.
    if not all(part.isascii() and part.isdigit() and len(part) <= 19 for part in (epoch, index)):
        raise foreign_position(backend, stream, position)
    if int(epoch) > _LARGEST:
        raise foreign_position(backend, stream, position)
    return int(epoch), min(int(index), _LARGEST)
