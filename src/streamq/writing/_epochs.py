"""Makes epochs of the clock, and explains those of another host's clock.

Design: docs/design/clocks.md.
"""

from __future__ import annotations

import time

_EARLIEST, _LATEST = 10**15, 10**16  # microseconds: 2001 to 2286; other epochs are no times
_NOTABLE = 100_000


def clock_epoch(newest: int = 0) -> int:
    """Return the epoch of a writer that opens a stream now: the time in microseconds, or more.

    Args:
        newest: The newest epoch of the stream; 0 if there is none. The clock of the writer that
            opened it may be ahead of ours.
    """
    return max(time.time_ns() // 1_000, newest + 1)


def clock_hint(newest: int) -> str:
    """Return the end of a message about a newer epoch: whether a clock is why it is newer."""
    ahead = newest - time.time_ns() // 1_000
    if not (_EARLIEST < newest < _LATEST and ahead > _NOTABLE):
        return ""
    return (
        f"; epochs are times, and this one is {ahead / 1e6:.1f} s ahead of this host's clock: "
        "compare the clocks of the hosts that write, or of the Temporal servers"
    )
