"""Compares this machine's clock with that of a service.

Design: docs/design/aws.md.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from streamq.driver import Finding

REFUSED_SECONDS = 300.0
"""SQS and SNS refuse requests that are so old or so new; S3 refuses them from 900 s on."""

_NOTICED_SECONDS = 30.0
_STEP = "set this machine's clock by NTP"


def seconds_ahead(answer: Mapping[str, Any]) -> float:
    """Return how far this machine's clock is ahead of a service's; 0 if its answer has no time.

    Args:
        answer: Of a client, or of an error of it.
    """
    headers = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    try:
        return time.time() - parsedate_to_datetime(headers.get("date", "")).timestamp()
    except (TypeError, ValueError):
        return 0.0


def difference(answer: Mapping[str, Any]) -> str:
    """Return in words how far the two clocks are apart."""
    seconds = seconds_ahead(answer)
    if abs(seconds) < 1:
        return "this machine's clock differs from that of AWS"
    direction = "ahead of" if seconds > 0 else "behind"
    return f"this machine's clock is {abs(seconds):.0f} s {direction} that of AWS"


def clock_finding(answer: Mapping[str, Any]) -> Finding:
    """Return what the doctor has to report about the clock, from any answer of a service."""
    off = abs(seconds_ahead(answer))
    if off < _NOTICED_SECONDS:
        return Finding("clock", True, "it agrees with that of AWS")
    if off < REFUSED_SECONDS:
        return Finding("clock", True, difference(answer), _STEP, is_warning=True)
    return Finding("clock", False, f"{difference(answer)}: requests are refused", _STEP)
