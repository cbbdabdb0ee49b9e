"""Computes the epoch of an activity's attempt, with which it fences earlier attempts.

Design: docs/design/attempts.md.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from temporalio import activity

_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def attempt_epoch(info: activity.Info) -> int:
    """Return the epoch of an attempt: the time at which the server scheduled it, plus its number.

    It grows with every attempt, with every new scheduling of the activity, with a reset of the
    activity, and across workflow retry and workflow reset, where the attempt number alone would
    start at 1 again. It fits into 53 bits.

    All attempts of a local activity have one scheduling time, the worker's. Their number may
    therefore exceed 999: an attempt takes more than a microsecond, so that a later call still
    has a higher epoch.
    """
    scheduled_ms = (info.current_attempt_scheduled_time - _UNIX_EPOCH) // timedelta(milliseconds=1)
    return scheduled_ms * 1000 + info.attempt
