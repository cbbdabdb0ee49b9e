"""The time of the servers, as far as their answers tell it."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime


class ServerClock:
    """This machine's clock, corrected where it cannot agree with what a server has said.

    Streams expire by absolute times that one machine writes and another compares. Services send
    the time in whole seconds with each answer: enough to keep a clock that is wrong by minutes from
    ending streams early, and nothing that a good clock is changed by.
    """

    def __init__(self) -> None:
        self._offset = 0.0

    def now_ms(self) -> int:
        """Return the time in ms since 1970."""
        return int((time.time() + self._offset) * 1000)

    def observe(self, date: str | None, sent: float) -> None:
        """Learn from an answer.

        Args:
            date: Its header ``Date``.
            sent: When it was asked for, by this machine's clock.
        """
        if not date:
            return
        try:
            said = parsedate_to_datetime(date).timestamp()
        except ValueError:
            return
        # It was that second at some moment between asking and now.
        earliest, latest = said - time.time(), said + 1.0 - sent
        self._offset = min(max(self._offset, earliest), latest)
