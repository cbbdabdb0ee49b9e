"""Defines how much one poll or one signal collects: the defaults, the bounds and their checks."""

from __future__ import annotations

from streamq._errors import ConfigurationError
from streamq.temporal._event_json import PAYLOAD_BYTES

WINDOW_SECONDS = 0.1
"""How long a poll of :func:`stream_activity` collects events, by default."""

MAX_WAIT_SECONDS = 60.0
"""How long a poll waits for the first event, by default."""

MAX_EVENTS = 1_000
"""Most events of one poll or signal, by default."""

MAX_BYTES = 524_288
"""Most bytes of one poll or signal, as JSON, by default."""

LONGEST_SECONDS = 3_600.0
"""Longest time that a poll may wait or collect."""


def check_seconds(name: str, seconds: float) -> None:
    """Check a time that a poll or a signal takes.

    Raises:
        ConfigurationError: It is outside its bounds.
    """
    if not 0 <= seconds <= LONGEST_SECONDS:  # NaN neither
        raise ConfigurationError(f"{name} {seconds} is outside 0 to {LONGEST_SECONDS:g}")


def check_limits(window_seconds: float, max_events: int, max_bytes: int) -> None:
    """Check how much one poll or signal is to collect.

    Raises:
        ConfigurationError: A limit is outside its bounds.
    """
    check_seconds("window_seconds", window_seconds)
    if max_events < 1 or not 1 <= max_bytes <= PAYLOAD_BYTES:
        raise ConfigurationError(
            f"max_events must be at least 1, and max_bytes 1 to {PAYLOAD_BYTES}, not "
            f"{max_events} and {max_bytes}"
        )
