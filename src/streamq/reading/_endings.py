"""Raises the error that belongs to the ending of a stream.

Design: docs/design/reading.md.
"""

from __future__ import annotations

from streamq._errors import StreamCancelledError, StreamFailedError
from streamq._events import Seal, SealState, StreamId


def raise_for_seal(seal: Seal | None, stream: StreamId) -> None:
    """Raise if the ending was not END.

    Raises:
        StreamFailedError: ERROR.
        StreamCancelledError: CANCELLED.
    """
    if seal is None or seal.state is SealState.END:
        return
    detail = f": {seal.message}" if seal.message else ""
    if seal.state is SealState.CANCELLED:
        raise StreamCancelledError(
            f"the producer of {stream} was cancelled{detail}", stream=str(stream)
        )
    raise StreamFailedError(
        f"the producer of {stream} failed with {seal.error_type}{detail}",
        error_type=seal.error_type,
        retryable=seal.retryable,
        stream=str(stream),
    )
