"""Encodes positions: the receipts of all messages that a reader has and has not acknowledged."""

from __future__ import annotations

from collections.abc import Sequence

from streamq.driver import START, StreamId, foreign_position
from streamq_sqs._errors import BACKEND

_SEPARATOR = " "
_KIND = "sqs"


def position_of(receipts: Sequence[str]) -> str:
    """Return the position that carries these receipts."""
    return _SEPARATOR.join((_KIND, *receipts))


def receipts_of(position: str, stream: StreamId) -> list[str]:
    """Return the receipts that a position carries.

    Raises:
        CursorError: It is not a position of this driver.
    """
    if position == START:
        return []
    kind, *receipts = position.split(_SEPARATOR)
    if kind != _KIND or not receipts or not all(receipts) or not position.isprintable():
        raise foreign_position(BACKEND, stream, position)
    return receipts
