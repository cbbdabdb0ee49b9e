"""Why streams stopped being read, in the log: each reason once, however often clients come back."""

from __future__ import annotations

import logging

from streamq._errors import IdleTimeoutError, StreamqError
from streamq._events import StreamId

_logger = logging.getLogger("streamq.gateway")

_MOST_STREAMS = 1_000


class FailureLog:
    """Remembers what the log was told of each stream. One for all hubs of a gateway."""

    def __init__(self) -> None:
        self._told: dict[StreamId, str] = {}

    def tell(self, stream: StreamId, error: StreamqError) -> None:
        """Log a failure, unless it is the one that was told of this stream last."""
        line = f"{error.code}: {error}"
        if self._told.pop(stream, None) == line:
            level = logging.DEBUG
        else:
            # A forgotten tab on an abandoned stream would otherwise warn for ever.
            level = logging.INFO if isinstance(error, IdleTimeoutError) else logging.WARNING
        self._told[stream] = line
        if len(self._told) > _MOST_STREAMS:
            del self._told[next(iter(self._told))]
        _logger.log(level, "reading %s stopped: %s", stream, line)

    def forget(self, stream: StreamId) -> None:
        """Note that the stream can be read: its next failure is a new one."""
        self._told.pop(stream, None)
