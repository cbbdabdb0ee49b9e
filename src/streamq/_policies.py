"""What a producer decides: what a retry looks like, and what happens when the buffer is full."""

from __future__ import annotations

import enum


class OnRetry(enum.Enum):
    """What readers see when a new attempt takes a stream over.

    RESTART tells them to forget what they saw (``Reset``), for output that differs each time.
    RESUME goes on after the last durable chunk: the producer asks ``position`` where that is.
    REPLAY is for a producer that sends the same chunks again from the first: those that are
    durable are compared and dropped, the others are sent.
    """

    RESTART = "restart"
    RESUME = "resume"
    REPLAY = "replay"


class OnFull(enum.Enum):
    """What ``send_chunk`` does while the buffer is full because the backend is slow or away.

    BLOCK waits for room. ERROR raises ``BufferFullError``. DROP lets the chunk go, counted in
    ``statistics().dropped_chunks``; it takes no place in the stream, and readers see no gap. So
    ``position`` does not count it: an attempt that resumes cannot tell from there which item is
    next.
    """

    BLOCK = "block"
    ERROR = "error"
    DROP = "drop"
