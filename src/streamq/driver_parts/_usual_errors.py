"""Makes the errors that every driver raises, with the same words on every backend.

Design: docs/design/contract.md.
"""

from __future__ import annotations

from streamq._errors import ClosedError, CursorError, FencedError, StreamNotFoundError
from streamq._events import StreamId


def closed_error(backend: str, stream: StreamId | str | None = None) -> ClosedError:
    """Return the error that every call of a closed queue raises."""
    return ClosedError(
        f"this {backend} queue has been closed",
        backend=backend,
        stream=None if stream is None else str(stream),
    )


def not_found_error(backend: str, stream: StreamId | str | None) -> StreamNotFoundError:
    """Return the error for a stream that does not exist."""
    return StreamNotFoundError(
        f"there is no stream {stream} (never written, deleted, or expired)",
        backend=backend,
        stream=None if stream is None else str(stream),
    )


def fenced_error(backend: str, stream: StreamId | str, *, epoch: int, newest: int) -> FencedError:
    """Return the error for a writer whose epoch is not the newest one."""
    return FencedError(
        f"epoch {newest} has taken over stream {stream}; epoch {epoch} must stop",
        backend=backend,
        stream=str(stream),
    )


def foreign_position(backend: str, stream: StreamId | str, position: str) -> CursorError:
    """Return the error for a position that another backend has made."""
    return CursorError(
        f"{position[:50]!r} is not a position of backend {backend!r}; read from the start or from "
        "a cursor that this backend returned",
        backend=backend,
        stream=str(stream),
    )
