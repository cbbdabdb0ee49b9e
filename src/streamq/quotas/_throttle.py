"""Spreads bytes over time: what is sent too early delays what comes next.

Design: docs/design/quotas.md.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_BURST_SECONDS = 1.0


class Throttle:
    """A bound of bytes per second, on average, with a burst of what one second permits.

    Nothing is refused and nothing is divided. Bytes are booked in the order of the calls; each call
    returns how long its bytes have to wait, which is until those before them have been paid for. It
    is therefore held with pieces of any size, and by any number of senders together. May be used in
    any thread and in any event loop.

    Args:
        bytes_per_second: The bound.
        clock: Returns seconds that never go back.
    """

    def __init__(self, bytes_per_second: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.bytes_per_second = bytes_per_second
        self._clock = clock
        self._lock = threading.Lock()
        self._paid_at = clock() - _BURST_SECONDS

    @property
    def is_idle(self) -> bool:
        """Whether a new one would do the same: the whole burst is free."""
        return self._paid_at <= self._clock() - _BURST_SECONDS

    def book(self, size: int) -> float:
        """Count bytes that are to be sent; return the seconds until they may be."""
        with self._lock:
            now = self._clock()
            begin = self._paid_at
            if begin < now - _BURST_SECONDS:
                begin = now - _BURST_SECONDS
            self._paid_at = begin + size / self.bytes_per_second
        return begin - now if begin > now else 0.0

    def refund(self, size: int) -> None:
        """Take back bytes that were booked and not sent."""
        with self._lock:
            self._paid_at -= size / self.bytes_per_second
