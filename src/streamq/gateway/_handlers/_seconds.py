"""Converts durations for answers.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

from datetime import timedelta


def seconds(left: timedelta | None) -> float | None:
    """Return a duration in seconds; ``None`` for none."""
    return None if left is None else left.total_seconds()
