"""Finds the queues of streams, remembers them, and waits for queues that do not exist yet.

Design: docs/design/sqs.md.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from dataclasses import dataclass

from streamq.driver import StreamId

from ._errors import not_found
from ._naming import QueueNames
from ._requests import SqsRequests

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.05, 1.0
_SHARE_SECONDS = 0.02  # all readers of a process together look 50 times a second at most
_MOST_REMEMBERED = 10_000


@dataclass(slots=True)
class KnownQueue:
    """What is remembered of a stream's queue, to send SQS fewer requests.

    Attributes:
        url: URL of the queue.
        epoch: The largest epoch that this process has seen; others may have opened larger ones.
        alive_at: When its tags last marked the stream as in use, by the clock of the event loop.
    """

    url: str
    epoch: int = 0
    alive_at: float = float("-inf")


class QueueLookup:
    """The queues that this process has found or created.

    Args:
        requests: The requests to SQS.
        names: The names of queues.
    """

    def __init__(self, requests: SqsRequests, names: QueueNames) -> None:
        self._requests = requests
        self._names = names
        self._known: OrderedDict[StreamId, KnownQueue] = OrderedDict()
        self._opened = asyncio.Condition()
        self._waiting = 0
        self._clock = asyncio.get_running_loop().time

    def remembered(self, stream: StreamId) -> KnownQueue | None:
        """Return what is remembered of a stream's queue, without a request."""
        return self._known.get(stream)

    def remember(self, stream: StreamId, url: str) -> KnownQueue:
        """Remember a stream's queue, and forget the least recently used one if there are many."""
        known = self._known.setdefault(stream, KnownQueue(url))
        self._known.move_to_end(stream)
        if len(self._known) > _MOST_REMEMBERED:
            self._known.popitem(last=False)
        return known

    def forget(self, stream: StreamId) -> None:
        """Forget a stream's queue, so that SQS is asked for it next time."""
        self._known.pop(stream, None)

    async def url(self, stream: StreamId) -> str | None:
        """Return the URL of a stream's queue; ``None`` if there is none."""
        known = self._known.get(stream)
        if known is not None:
            return known.url
        url = await self._requests.url(self._names.queue(stream))
        return None if url is None else self.remember(stream, url).url

    async def find(self, stream: StreamId) -> KnownQueue:
        """Return the queue of a stream that has been opened before.

        Raises:
            StreamNotFoundError: It is gone. It must not be created again here: that would be
                another stream, without its beginning and without the epoch of its writer.
        """
        url = await self.url(stream)
        if url is None:
            raise not_found(stream, self._names.queue(stream))
        return self.remember(stream, url)

    async def wake_waiting(self) -> None:
        """Wake the readers of this process that wait for a queue, after one was opened here."""
        async with self._opened:
            self._opened.notify_all()

    async def wait_for_queue(self, stream: StreamId, seconds: float) -> bool:
        """Wait until a stream's queue exists, and return whether it does.

        SQS announces no new queues, so this looks for it again and again.
        """
        until, pause = self._clock() + seconds, self.first_pause
        while await self.url(stream) is None:
            if self._clock() >= until:
                return False
            pause = await self.pause(stream, pause, until)
        return True

    @property
    def first_pause(self) -> float:
        """How many seconds to wait before a queue is looked for a second time."""
        return _FIRST_PAUSE_SECONDS

    async def pause(self, stream: StreamId, seconds: float, until: float) -> float:
        """Wait before looking for a stream's queue again; return how long to wait next time.

        The wait is longer if many readers look. It ends early when the stream is opened in this
        process, and at a deadline.
        """
        self._waiting += 1
        try:
            share = self._waiting * _SHARE_SECONDS
            with contextlib.suppress(TimeoutError):
                left = until - self._clock()
                async with asyncio.timeout(min(left, max(seconds, share))), self._opened:
                    await self._opened.wait_for(lambda: stream in self._known)
        finally:
            self._waiting -= 1
        return min(2 * seconds, _LONGEST_PAUSE_SECONDS)
