"""Lets readers wait for new segments: woken by notifications, and polling in any case.

Design: docs/design/s3sns.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from streamq.driver import Stored
from streamq_s3sns._known_streams import KnownStream
from streamq_s3sns._position import SegmentPosition
from streamq_s3sns._reading import SegmentReader

from ._listener import NotificationListener

_FIRST_PAUSE = 0.05
_POLL_SECONDS = 0.01  # so that all readers of a process poll 100 times a second at most
_PAUSE_GROWTH = 1.5
_WOKEN_PATIENCE = 8


class LiveTail:
    """The readers of one queue that wait for something new.

    Args:
        reader: Fetches what is stored.
        poll_seconds: Longest pause between two polls; with notifications, the first pause.
        listener: Receives notifications; ``None`` if there are none.
    """

    def __init__(
        self, reader: SegmentReader, poll_seconds: float, listener: NotificationListener | None
    ) -> None:
        self._reader = reader
        self._poll_seconds = poll_seconds
        self._listener = listener
        self._waiting = 0

    async def read(
        self,
        directory: str,
        known: KnownStream,
        position: SegmentPosition,
        max_records: int,
        max_bytes: int,
        max_wait: float,
    ) -> Sequence[Stored]:
        """Return records after a position, as :meth:`streamq.driver.ChunkQueue.read`."""
        clock = asyncio.get_running_loop().time
        until = clock() + max_wait
        news = asyncio.Event()
        known.news.add(news)
        self._waiting += 1
        pause = _FIRST_PAUSE
        was_empty = False
        try:
            while True:
                news.clear()
                before = position.number
                found, position = await self._reader.fetch(
                    directory,
                    known,
                    position,
                    max_records,
                    max_bytes,
                    is_final=max_wait <= 0,
                    was_empty=was_empty,
                )
                left = until - clock()
                may_be_more = position.number <= known.newest or (before and max_wait <= 0)
                if not found and before < position.number and may_be_more:
                    continue  # the segment had no entries, and the next one may be missing
                if found or left <= 0:
                    return found
                was_empty = True
                wait, pause = self._next_pause(pause)
                try:
                    async with asyncio.timeout(min(left, wait)):
                        await news.wait()
                except TimeoutError:
                    pass
        finally:
            self._waiting -= 1
            known.news.discard(news)

    def _next_pause(self, pause: float) -> tuple[float, float]:
        """Return how long to wait for a notification before polling, and the pause after that."""
        longest = self._poll_seconds
        fair = self._waiting * _POLL_SECONDS
        if self._listener is not None:
            self._listener.listen()
            if self._listener.is_listening:
                wait = max(pause, longest)
                return max(wait, fair), min(2 * wait, _WOKEN_PATIENCE * longest)
        return max(min(pause, longest), fair), min(pause * _PAUSE_GROWTH, longest)
