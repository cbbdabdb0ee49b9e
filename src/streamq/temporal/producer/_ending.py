"""Represents how the streams of an attempt end.

Design: docs/design/attempts.md.
"""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from streamq._events import SealState
from streamq.writing._writer import StreamWriter


@dataclass(frozen=True, slots=True)
class Ending:
    """How the streams of an attempt end.

    Attributes:
        state: State of the seal; ``None`` leaves the streams open, to the next attempt.
        error_type: With ERROR, the type of the failure for readers.
        message: Message for readers.
        retryable: With ERROR, whether the failure may pass.
    """

    state: SealState | None
    error_type: str = ""
    message: str = ""
    retryable: bool = False

    def seal(self, writer: StreamWriter) -> Coroutine[Any, Any, None]:
        """Return a coroutine that seals a stream so."""
        if self.state is SealState.CANCELLED:
            return writer.cancel(self.message)
        return writer.fail(self.message, error_type=self.error_type, retryable=self.retryable)


OPEN = Ending(None)
