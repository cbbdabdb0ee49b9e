"""Sends the user's heartbeat details together with streamq's position."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from typing import Any

from temporalio import activity
from temporalio.worker import ActivityOutboundInterceptor

_OURS = "streamq"


class Heartbeats(ActivityOutboundInterceptor):
    """Repeats the details of the user's last heartbeat in each of streamq's heartbeats.

    A heartbeat replaces the details of the previous one, so that streamq's heartbeats alone would
    erase what the activity has recorded for its next attempt. :func:`activity.info` returns only
    the user's details.
    """

    def __init__(self, next: ActivityOutboundInterceptor) -> None:
        super().__init__(next)
        self._details: tuple[Any, ...] = ()
        self._ours: dict[str, object] | None = None

    def info(self) -> activity.Info:
        """Return the activity's info without streamq's details."""
        info = super().info()
        details = info.heartbeat_details
        if not details or not isinstance(details[-1], dict) or set(details[-1]) != {_OURS}:
            return info
        return dataclasses.replace(info, heartbeat_details=list(details[:-1]))

    def begin(self) -> None:
        """Take over the user's details of the previous attempt."""
        self._details = tuple(self.info().heartbeat_details)

    def heartbeat(self, *details: Any) -> None:
        """Send the user's heartbeat."""
        # Copied: a later change by the function must not be sent before its next heartbeat.
        with contextlib.suppress(Exception):  # details that cannot be copied are sent as they are
            details = copy.deepcopy(details)
        self._details = details
        super().heartbeat(*details, *([self._ours] if self._ours else []))

    def beat(self, ours: object) -> None:
        """Send a heartbeat with streamq's details."""
        self._ours = {_OURS: ours}
        super().heartbeat(*self._details, self._ours)
