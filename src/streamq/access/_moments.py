"""Reads moments that others have written, in seconds since the epoch.

Design: docs/design/access.md.
"""

from __future__ import annotations

MOST_SECONDS = 253_402_300_799.0
"""The last moment that is accepted, since the epoch: the end of the year 9999."""

SKEW_SECONDS = 5.0
"""How far an issuer's clock may be ahead of ours."""


def moment(value: object) -> float | None:
    """Return a moment that a JSON document states; ``None`` if it is none.

    A number may be larger than any float, or none at all (NaN).
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= MOST_SECONDS else None
