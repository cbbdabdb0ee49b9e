"""Estimates the time of the servers from their answers.

Design: docs/design/s3sns.md.
"""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime


class ServerClock:
    """This machine's clock, corrected where it contradicts a server's.

    Streams expire at absolute times that one machine writes and another compares. Services send the
    time in whole seconds with each answer. This is enough to keep a clock that is minutes off from
    expiring streams early. It does not change a clock that is right.
    """

    def __init__(self) -> None:
        self._offset = 0.0

    def now_ms(self) -> int:
        """Return the time in ms since 1970."""
        return int((time.time() + self._offset) * 1000)

    def observe(self, date: str | None, sent: float) -> None:
        """Correct the clock by an answer.

        Args:
            date: The answer's header ``Date``.
            sent: When the request was sent, by this machine's clock.
        """
        if not date:
            return
        try:
            said = parsedate_to_datetime(date).timestamp()
        except ValueError:
            return
        # The server's clock showed that second at some moment between request and answer.
        earliest, latest = said - time.time(), said + 1.0 - sent
        self._offset = min(max(self._offset, earliest), latest)
