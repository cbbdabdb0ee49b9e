"""Spreads bytes over time: what was sent too early delays what comes next.

Design: docs/design/quotas.md.
"""

from __future__ import annotations

import threading
import time

_BURST_SECONDS = 1.0


class Throttle:
    """A bound of bytes per second, on average, with a burst of what one second permits.

    Nothing is refused and nothing is divided: whoever sends runs up a debt, and the next one waits
    until it is paid. It is therefore held with pieces of any size. May be used in any thread and in
    any event loop.

    Args:
        bytes_per_second: The bound.
    """

    def __init__(self, bytes_per_second: int) -> None:
        self.bytes_per_second = bytes_per_second
        self._lock = threading.Lock()
        self._paid_at = time.monotonic() - _BURST_SECONDS

    @property
    def delay(self) -> float:
        """Seconds until something may be sent; 0 if it may be now."""
        return max(self._paid_at - time.monotonic(), 0.0)

    @property
    def is_idle(self) -> bool:
        """Whether a new one would do the same: the whole burst is free."""
        return self._paid_at <= time.monotonic() - _BURST_SECONDS

    def spend(self, size: int) -> None:
        """Count bytes that were sent."""
        with self._lock:
            begin = max(self._paid_at, time.monotonic() - _BURST_SECONDS)
            self._paid_at = begin + size / self.bytes_per_second
