"""Checks a writer's limits: the size of one chunk, and what the buffer holds.

Design: docs/design/writing.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from streamq._errors import BufferFullError, ChunkTooLargeError, NotAwaitedError, QuotaError
from streamq._events import StreamId
from streamq.driver import ChunkQueue

from ._writer_options import WriterOptions


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one writer, and the errors of chunks that exceed them.

    Attributes:
        chunk_bytes: Largest encoded chunk.
        record_bytes: Largest encoded chunk that is stored whole.
        takes_parts: Whether a larger one may be stored in parts.
        buffer_bytes: Most bytes that are accepted and not stored.
        holds_back: Whether chunks are held back until the end, as batch mode does.
        attempt_bytes: Most bytes of chunks that the writer accepts in all, by its tenant's quota.
        backend: Name of the backend, for messages.
        stream: The stream, for messages.
    """

    chunk_bytes: int
    record_bytes: int
    takes_parts: bool
    buffer_bytes: int
    holds_back: bool
    attempt_bytes: int | None
    backend: str
    stream: str

    @classmethod
    def of(
        cls, options: WriterOptions, queue: ChunkQueue, stream: StreamId, record_bytes: int
    ) -> Self:
        """Return the limits of a writer with these options, on this backend."""
        return cls(
            chunk_bytes=options.max_chunk_bytes,
            record_bytes=record_bytes,
            takes_parts=queue.capabilities.replay,
            buffer_bytes=options.buffer_bytes,
            holds_back=options.holds_back,
            attempt_bytes=options.quota.attempt_bytes if options.quota else None,
            backend=queue.backend,
            stream=str(stream),
        )

    def check_total(self, size: int) -> None:
        """Check the bytes of all chunks of the attempt, with the one that is being accepted.

        Raises:
            QuotaError: They are more than the tenant's quota permits. Not retryable.
        """
        if self.attempt_bytes is not None and size > self.attempt_bytes:
            error = QuotaError(
                f"the attempt has {size} bytes of chunks with this one, more than the "
                f"{self.attempt_bytes} that the tenant's quota permits (attempt_bytes in "
                "STREAMQ_QUOTAS); send less, or raise the quota",
                backend=self.backend,
                stream=self.stream,
            )
            error.retryable = False
            raise error

    def check_chunk(self, size: int) -> None:
        """Check the size of an encoded chunk.

        Raises:
            ChunkTooLargeError: It is larger than a limit.
        """
        if not self.takes_parts and size > self.record_bytes:
            raise ChunkTooLargeError(
                f"chunk of {size} bytes exceeds the {self.record_bytes} that backend "
                f"{self.backend!r} stores in one record; it has no replay, so that a chunk cannot "
                "be sent in parts. Send smaller ones, or take another backend",
                backend=self.backend,
                stream=self.stream,
            )
        if size > self.chunk_bytes:
            raise ChunkTooLargeError(
                f"chunk of {size} bytes exceeds the limit of {self.chunk_bytes} "
                "(STREAMQ_MAX_CHUNK_BYTES); send it in smaller chunks",
                backend=self.backend,
                stream=self.stream,
            )

    def buffer_full(self, size: int, held: int, remedy: str) -> BufferFullError:
        """Return the error of a chunk that finds no room.

        What batch mode holds back does not shrink, so that its error is not retryable.

        Args:
            size: Bytes of the chunk.
            held: Bytes in the buffer.
            remedy: A way to wait for room, as an imperative.
        """
        if self.holds_back:
            message = (
                f"{held} bytes are held back until the activity ends; {size} more exceed the limit "
                f"of {self.buffer_bytes} (STREAMQ_BATCH_BYTES). Raise it, or stream with "
                "STREAMQ_MODE=realtime"
            )
        else:
            message = (
                f"{held} bytes wait for backend {self.backend!r}; {size} more exceed the limit of "
                f"{self.buffer_bytes} (STREAMQ_BUFFER_BYTES). Send it again later, or {remedy}"
            )
        error = BufferFullError(message, backend=self.backend, stream=self.stream)
        error.retryable = not self.holds_back
        return error


def not_awaited(calls: int, stream: str) -> NotAwaitedError:
    """Return the error of chunks that found no room and that nobody waited with."""
    return NotAwaitedError(
        f"{calls} calls of send_chunk found no room in the buffer and were never awaited; their "
        "chunks are lost. Await send_chunk, or call send_nowait in code that cannot await, and "
        "handle its BufferFullError",
        stream=stream,
    )
