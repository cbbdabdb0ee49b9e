"""Errors of streamq: one base class; every other class is named for a situation, never a backend.

Each class below names the situation and stands under its base class::

    StreamqError
        ConfigurationError
            BackendNotFoundError
            BackendLoadError
        CapabilityError
        BackendUnavailableError
            ThrottledError
        AccessDeniedError
        StorageFullError
        BackendError
        DriverError
        StreamNotFoundError
        StreamsLeftError
        TrimmedError
        StoryTooLargeError
        CursorError
        CorruptRecordError
        FencedError
        SealedError
        ClosedError
            ForeignLoopError
        ChunkTooLargeError
        BufferFullError
        QuotaError
        NotAwaitedError
        ReplayError
        SerializationError
        IdleTimeoutError
        ProducerGoneError
        StreamFailedError
        StreamCancelledError

Design: docs/design/contract.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import ClassVar

from .driver_parts._credentials import mask_credentials


class StreamqError(Exception):
    """Base class of every streamq error. What looks like a secret is masked in the message.

    The name of the stream is shown whole, whatever it looks like, so that it can be copied.

    Attributes:
        code: Stable machine-readable name of the situation.
        backend: Name of the driver if a backend was involved, else ``None``.
        stream: ``tenant/name`` of the stream concerned as it is shown, else ``None``.
        retryable: Whether the same call may succeed later without any change by the caller.
    """

    code: ClassVar[str] = "streamq"
    retryable: bool = False

    def __init__(
        self, message: str, *, backend: str | None = None, stream: str | None = None
    ) -> None:
        message = mask_credentials(message, keep=stream or "")
        super().__init__(message)
        self.message = message
        self.backend = backend
        self.stream = stream

    def __str__(self) -> str:
        return self.message


class ConfigurationError(StreamqError):
    """A setting is unknown or malformed, or contradicts another one."""

    code = "configuration"


class BackendNotFoundError(ConfigurationError):
    """No installed driver has the requested name."""

    code = "backend_not_found"


class BackendLoadError(ConfigurationError):
    """A driver is installed but cannot be used: broken import, duplicate name, wrong type."""

    code = "backend_load"


class CapabilityError(StreamqError):
    """The caller requires a capability that the selected backend does not declare."""

    code = "capability"


class BackendUnavailableError(StreamqError):
    """The backend cannot be reached, or did not answer in time."""

    code = "backend_unavailable"
    retryable = True


class ThrottledError(BackendUnavailableError):
    """The backend answers, and accepts no more requests for now."""

    code = "throttled"


class AccessDeniedError(StreamqError):
    """The backend refused our credentials or permissions."""

    code = "access_denied"


class StorageFullError(StreamqError):
    """The backend has no room for the data (memory or disk)."""

    code = "storage_full"
    retryable = True


class BackendError(StreamqError):
    """The backend answered with an error that fits no other class."""

    code = "backend"


class DriverError(StreamqError):
    """The driver of a backend broke the contract: a defect of the driver, whatever the server does.

    Its cause is the exception that the driver raised, if it raised one.
    """

    code = "driver"


class StreamNotFoundError(StreamqError):
    """The stream does not exist, or has expired."""

    code = "stream_not_found"


class StreamsLeftError(StreamqError):
    """Streams that were to be erased are there, since their producers go on.

    Attributes:
        erased: How many were deleted.
        left: Names of those that are there.
    """

    code = "streams_left"

    def __init__(self, message: str, *, erased: int, left: Sequence[str]) -> None:
        super().__init__(message)
        self.erased = erased
        self.left = tuple(left)


class TrimmedError(StreamqError):
    """Events that the reader requested are no longer stored.

    Attributes:
        oldest: Offset of the oldest event that can still be read.
    """

    code = "trimmed"

    def __init__(
        self, message: str, *, oldest: int, backend: str | None = None, stream: str | None = None
    ) -> None:
        super().__init__(message, backend=backend, stream=stream)
        self.oldest = oldest


class StoryTooLargeError(StreamqError):
    """The last attempt of a stream is larger than the caller of ``read_story`` permits."""

    code = "story_too_large"


class CursorError(StreamqError):
    """A cursor is malformed, or belongs to another stream (or an earlier one of the same name)."""

    code = "cursor"


class CorruptRecordError(StreamqError):
    """Stored bytes are not a valid record: truncated, altered, or of an unknown version."""

    code = "corrupt_record"


class FencedError(StreamqError):
    """A newer attempt has taken the stream over; this writer must stop."""

    code = "fenced"


class SealedError(StreamqError):
    """The stream has ended; nothing can be added to it.

    Attributes:
        producer: Name that the writer which sealed it was opened with; may be empty.
    """

    code = "sealed"

    def __init__(
        self,
        message: str,
        *,
        producer: str = "",
        backend: str | None = None,
        stream: str | None = None,
    ) -> None:
        super().__init__(message, backend=backend, stream=stream)
        self.producer = producer


class ClosedError(StreamqError):
    """The writer, reader or queue was closed by its owner."""

    code = "closed"


class ForeignLoopError(ClosedError):
    """A queue, writer or reader is used outside the event loop or process that it was opened in."""

    code = "foreign_loop"


class ChunkTooLargeError(StreamqError):
    """A chunk is larger than the limit in force; nothing of it was stored."""

    code = "chunk_too_large"


class BufferFullError(StreamqError):
    """The writer's buffer has no room and its policy is not to wait; the chunk was not accepted."""

    code = "buffer_full"
    retryable = True


class QuotaError(StreamqError):
    """A tenant, or the holder of a token, has taken all that its quota permits.

    ``retryable`` says whether it may have more later: another writer may end, while what one
    attempt may send is used up for good.
    """

    code = "quota"
    retryable = True


class NotAwaitedError(StreamqError):
    """Chunks were lost because calls of ``send_chunk`` were never awaited."""

    code = "not_awaited"


class ReplayError(StreamqError):
    """A replaying attempt did not send the chunks again that an earlier attempt had stored.

    Attributes:
        seq: Position of the chunk that differs or is missing.
    """

    code = "replay"

    def __init__(
        self, message: str, *, seq: int, backend: str | None = None, stream: str | None = None
    ) -> None:
        super().__init__(message, backend=backend, stream=stream)
        self.seq = seq


class SerializationError(StreamqError):
    """A value cannot be encoded, or stored bytes cannot be decoded; nothing was stored."""

    code = "serialization"


class IdleTimeoutError(StreamqError):
    """Nothing arrived within the reader's idle deadline; the producer may be gone."""

    code = "idle_timeout"


class ProducerGoneError(StreamqError):
    """The producer's workflow ended without sealing the stream.

    Attributes:
        status: How the workflow ended, in Temporal's terms (``TERMINATED``, ``FAILED``, ...).
    """

    code = "producer_gone"

    def __init__(self, message: str, *, status: str, stream: str | None = None) -> None:
        super().__init__(message, stream=stream)
        self.status = status


class StreamFailedError(StreamqError):
    """The producer sealed the stream with ERROR.

    Attributes:
        error_type: The producer's name for its failure.
    """

    code = "stream_failed"

    def __init__(
        self, message: str, *, error_type: str, retryable: bool, stream: str | None = None
    ) -> None:
        super().__init__(message, stream=stream)
        self.error_type = error_type
        self.retryable = retryable


class StreamCancelledError(StreamqError):
    """The producer was cancelled and sealed the stream CANCELLED."""

    code = "stream_cancelled"


def error_text(error: object) -> str:
    """Return the text of an exception of any class, to be shown, stored or sent.

    Code of others decides what ``str`` of its exceptions does: it may raise, and its text may have
    surrogates, which cannot be stored as UTF-8, or quote what the code was given, with its secrets.
    This function never raises, masks what looks like a secret, and returns what can be stored.
    """
    try:
        text = str(error)
    except Exception as exc:  # noqa: BLE001 - whatever the class of the exception raises
        return f"<{type(error).__name__}: its text cannot be shown ({type(exc).__name__})>"
    return mask_credentials(text.encode("utf-8", "backslashreplace").decode("utf-8"))


def is_cancellation(error: BaseException, *classes: type[BaseException]) -> bool:
    """Whether an exception is a cancellation, or a group of nothing but cancellations.

    Args:
        error: The exception.
        classes: Classes that are cancellations besides :class:`asyncio.CancelledError`.
    """
    cancellations: tuple[type[BaseException], ...] = (asyncio.CancelledError, *classes)
    if isinstance(error, BaseExceptionGroup):
        return error.split(cancellations)[1] is None
    return isinstance(error, cancellations)
