"""Positions of drivers that find records by ``(epoch, index)``."""

from __future__ import annotations

from ._errors import CursorError
from ._events import StreamId

Key = tuple[int, int]
BEFORE_ALL: Key = (0, 0)  # epochs start at 1


def encode_position(key: Key) -> str:
    """Return the position of the record ``(epoch, index)``."""
    return f"{key[0]}-{key[1]}"


def decode_position(position: str, *, backend: str, stream: StreamId) -> Key:
    """Return the ``(epoch, index)`` of a position, or :data:`BEFORE_ALL` for the start.

    Being an identity and not a place in a file, it stays meaningful when the stream has been
    deleted and created anew: whatever a newer epoch wrote comes after it.

    Raises:
        CursorError: This driver did not make that position.
    """
    if not position:
        return BEFORE_ALL
    epoch, _, index = position.partition("-")
    # Bounded before int(): a hostile position must not cost time or overflow a column.
    if not all(part.isascii() and part.isdigit() and len(part) <= 19 for part in (epoch, index)):
        raise CursorError(
            f"{position[:50]!r} is not a position of backend {backend!r}; read from the start "
            "or from a cursor that this backend returned",
            backend=backend,
            stream=str(stream),
        )
    return int(epoch), min(int(index), 2**63 - 1)
