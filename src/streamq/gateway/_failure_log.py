"""Logs the failures of streams, each reason once, however often clients reconnect.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import logging

from streamq._errors import IdleTimeoutError, StreamNotFoundError, StreamqError
from streamq._events import StreamId

from ._log_limit import gateway_logger

_logger = gateway_logger()

_MAX_STREAMS = 1_000


class FailureLog:
    """Remembers the last failure of each stream. All hubs of a gateway share one."""

    def __init__(self) -> None:
        self._logged: dict[StreamId, str] = {}

    def log(self, stream: StreamId, error: StreamqError) -> None:
        """Log a failure; one that repeats the last failure of this stream only at debug level."""
        line = f"{error.code}: {error}"
        if self._logged.pop(stream, None) == line:
            level = logging.DEBUG
        else:
            # A forgotten tab on an abandoned stream would otherwise warn for ever, and so would
            # clients that wait for streams which never begin.
            is_usual = isinstance(error, (IdleTimeoutError, StreamNotFoundError))
            level = logging.INFO if is_usual else logging.WARNING
        self._logged[stream] = line
        if len(self._logged) > _MAX_STREAMS:
            del self._logged[next(iter(self._logged))]
        _logger.log(level, "reading %s stopped: %s", stream, line)

    def forget(self, stream: StreamId) -> None:
        """Note that the stream can be read again: its next failure is a new one."""
        self._logged.pop(stream, None)
