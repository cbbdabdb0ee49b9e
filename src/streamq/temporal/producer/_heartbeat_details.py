"""Heartbeats of a streaming activity: the user's details and, behind them, the position."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from typing import Any

from temporalio import activity
from temporalio.worker import ActivityOutboundInterceptor

_OURS = "streamq"


class Heartbeats(ActivityOutboundInterceptor):
    """Sends the details of the user's last heartbeat again with each of ours.

    A heartbeat replaces the details of the one before, so that ours would make the next attempt
    forget what the activity had noted. :func:`activity.info` shows the user's only.
    """

    def __init__(self, next: ActivityOutboundInterceptor) -> None:
        super().__init__(next)
        self._details: tuple[Any, ...] = ()
        self._ours: dict[str, object] | None = None

    def info(self) -> activity.Info:
        """Return the activity's info without our details."""
        info = super().info()
        details = info.heartbeat_details
        if not details or not isinstance(details[-1], dict) or set(details[-1]) != {_OURS}:
            return info
        return dataclasses.replace(info, heartbeat_details=list(details[:-1]))

    def begin(self) -> None:
        """Take over what an earlier attempt had noted."""
        self._details = tuple(self.info().heartbeat_details)

    def heartbeat(self, *details: Any) -> None:
        """Send the user's heartbeat."""
        # As they are now: what the function changes before its next heartbeat is not noted yet.
        with contextlib.suppress(Exception):  # what cannot be copied is sent as it is
            details = copy.deepcopy(details)
        self._details = details
        super().heartbeat(*details, *([self._ours] if self._ours else []))

    def beat(self, ours: object) -> None:
        """Send one of our own."""
        self._ours = {_OURS: ours}
        super().heartbeat(*self._details, self._ours)
