"""Makes the error that belongs to the ending of a stream, or to its silence.

Design: docs/design/reading.md.
"""

from __future__ import annotations

from streamq._errors import IdleTimeoutError, StreamCancelledError, StreamFailedError
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


def idle_timeout(
    stream: StreamId, seconds: float, *, backend: str, consumes: bool
) -> IdleTimeoutError:
    """Return the error for a stream on which nothing has arrived within the idle deadline.

    Args:
        stream: Which stream.
        seconds: The deadline.
        backend: Where it is stored.
        consumes: Whether reading removes records, so that another reader may have taken them.
    """
    gone = ", or another reader has taken it all" if consumes else ""
    return IdleTimeoutError(
        f"nothing arrived on stream {stream} for {seconds:g} s; the producer may be gone{gone} "
        "(idle_seconds=, by default STREAMQ_IDLE_SECONDS, is the deadline)",
        backend=backend,
        stream=str(stream),
    )
