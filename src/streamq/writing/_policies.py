"""Choices of a producer: how a retry continues the stream, and what a full buffer does.

Design: docs/design/attempts.md.
"""

from __future__ import annotations

import enum


class OnRetry(enum.Enum):
    """How a new attempt that takes a stream over continues it.

    RESTART voids everything before it (readers get a ``Reset``), for output that differs each time.
    RESUME continues after the last durable chunk: the producer reads ``position`` to learn where.
    REPLAY is for a producer that sends the same chunks again from the first: durable chunks are
    compared and dropped, the others are stored.
    """

    RESTART = "restart"
    RESUME = "resume"
    REPLAY = "replay"


class OnFull(enum.Enum):
    """What ``send_chunk`` does while the buffer is full because the backend is slow or unavailable.

    BLOCK waits for room. ERROR raises ``BufferFullError``. DROP discards the chunk and counts it in
    ``statistics().dropped_chunks``. A dropped chunk takes no place in the stream, and readers see
    no gap. ``position`` does not count it either, so that an attempt that resumes cannot derive
    from it which item is next.
    """

    BLOCK = "block"
    ERROR = "error"
    DROP = "drop"
