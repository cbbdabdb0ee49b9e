"""Wakes the sending task, from the event loop or from any other thread.

Design: docs/design/writing.md.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from streamq._errors import ClosedError


class Wakeup(asyncio.Event):
    """An event of the running loop that other threads can set, too.

    Args:
        stream: Which stream, for messages.
        notify: Called instead of setting the event, in the event loop's thread.
    """

    def __init__(self, stream: str, notify: Callable[[], None] | None = None) -> None:
        super().__init__()
        self._stream = stream
        if notify is not None:
            self.set = notify  # type: ignore[method-assign]
        self._its_loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._is_scheduled = False

    def set_from_thread(self) -> None:
        """Set the event, in whichever thread; many calls before the loop runs are one wake-up.

        Raises:
            ClosedError: The event loop is closed.
        """
        if threading.get_ident() == self._loop_thread:
            self.set()
        elif self._its_loop.is_closed():
            raise loop_closed(self._stream)
        elif not self._is_scheduled:
            self._is_scheduled = True
            try:
                self._its_loop.call_soon_threadsafe(self._set_as_scheduled)
            except RuntimeError:
                raise loop_closed(self._stream) from None

    def _set_as_scheduled(self) -> None:
        # In this order: a chunk accepted in between is sent now, and a later one wakes again.
        self._is_scheduled = False
        self.set()


def loop_closed(stream: str) -> ClosedError:
    """Return the error of a call from a thread after the writer's event loop has ended."""
    return ClosedError(
        "the event loop of this writer has stopped; keep it running until the threads are done",
        stream=stream,
    )
