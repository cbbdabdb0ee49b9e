"""Bounds the lines that the gateway logs, whatever clients or the backend do.

Design: docs/design/gateway.md.
"""

from __future__ import annotations

import logging
import time

_MOST_LINES = 20
_SECONDS = 10.0
_MAX_KINDS = 500


class LogLimit(logging.Filter):
    """Passes at most 20 records of a kind in 10 seconds; the next record states what was left out.

    Records are of one kind if they have the same level and the same message before formatting.
    Attached to the loggers of the gateway, so that it holds for every handler.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kinds: dict[tuple[int, str], _Kind] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is logged."""
        key = record.levelno, str(record.msg)
        now = time.monotonic()
        kind = self._kinds.get(key)
        if kind is None:
            if len(self._kinds) >= _MAX_KINDS:
                del self._kinds[next(iter(self._kinds))]
            kind = self._kinds[key] = _Kind(now)
        if now >= kind.since + _SECONDS:
            if kind.left_out:
                record.msg = f"{record.getMessage()} ({kind.left_out} more like this left out)"
                record.args = None
            kind.since, kind.passed, kind.left_out = now, 0, 0
        kind.passed += 1
        if kind.passed > _MOST_LINES:
            kind.left_out += 1
            return False
        return True


class _Kind:
    """Counts the lines of one kind since the beginning of its interval."""

    __slots__ = ("left_out", "passed", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.passed = 0
        self.left_out = 0


def gateway_logger(name: str = "streamq.gateway") -> logging.Logger:
    """Return a logger of the gateway, with a limit."""
    logger = logging.getLogger(name)
    if not any(isinstance(each, LogLimit) for each in logger.filters):
        logger.addFilter(LogLimit())
    return logger
