"""Reads durations as people write them: ``90s``, ``10m``, ``36h``, ``7d``."""

from __future__ import annotations

import re
from datetime import timedelta

import typer

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")


def duration(text: str | timedelta) -> timedelta:
    """Return a duration; a number without a unit is in seconds.

    Raises:
        typer.BadParameter: The text is none.
    """
    if isinstance(text, timedelta):
        return text  # typer also parses defaults
    match = _DURATION.fullmatch(text.strip())
    try:
        if match is not None:
            return timedelta(**{_UNITS[match[2] or "s"]: float(match[1])})
    except OverflowError:
        pass
    raise typer.BadParameter(f"{text!r} is not a duration such as 90s, 10m, 36h or 7d")
