"""Reads the stored records of a stream for one client, from a position on.

Design: docs/design/reading-over-http.md.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import ExitStack

from streamq._errors import StreamNotFoundError, StreamqError
from streamq._events import StreamId
from streamq.quotas import Throttle

from ._clients import Client, Hold
from ._record_frames import CURRENT_EVENT, RecordPage
from ._record_reads import RecordReads, RecordRequest


class RecordFollower:
    """Delivers every record after a position once, as encoded frames, at the pace of the client.

    Args:
        stream: The stream.
        after: The position that the client has.
        first: The records after it, if they have been read.
        reads: Reads records.
        client: The client.
        throttles: All of them count what is delivered, and delay it.
        held: What the client holds while it follows.
        waiting: What it holds until the stream exists.
    """

    def __init__(
        self,
        stream: StreamId,
        after: str,
        first: RecordPage | None,
        reads: RecordReads,
        client: Client,
        throttles: Sequence[Throttle],
        held: ExitStack,
        waiting: Hold | None = None,
    ) -> None:
        self.stream = stream
        """The stream."""
        self.position = after
        """The position after the last record delivered."""
        self.client = client
        """The client."""
        self._next = after
        self._page = first
        self._due_at: float | None = None
        self._is_live = first is None
        self._is_current = False
        self._reads = reads
        self._throttles = throttles
        self._held = held
        self._waiting = waiting
        self._request: RecordRequest | None = None
        self._cut: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._failure: StreamqError | None = None

    @property
    def has_appeared(self) -> bool:
        """Whether the stream is known to exist."""
        return self._waiting is None

    async def read(self, max_wait: float) -> bytes:
        """Return the next frame; ``b""`` after ``max_wait`` without records.

        Raises:
            StreamqError: The stream was deleted here, or records cannot be read.
        """
        until = time.monotonic() + max_wait
        while self._page is None:
            self._raise_failure()
            if self._is_live and not self._is_current:
                self._is_current = True
                return CURRENT_EVENT
            if self._request is None:
                self._request = self._reads.request(
                    self.stream, self._next, self.client, is_live=self._is_live
                )
            left = max(until - time.monotonic(), 0.0)
            if not await self._request.wait(left, self._cut):
                if time.monotonic() >= until:
                    return b""
                continue
            request, self._request = self._request, None
            try:
                self._page = request.result()
            finally:
                request.drop()
            self._is_live = self._page is None or (self._is_live and not self._page.is_full)
        return await self._when_due(self._page, until)

    def cut(self, failure: StreamqError) -> None:
        """Let the client hear an error at once, instead of what is left."""
        self._failure = failure
        if not self._cut.done():
            self._cut.set_result(None)

    def close(self) -> None:
        """Give up what the client waits for and holds. Idempotent."""
        page, self._page = self._page, None
        if page is not None and self._due_at is not None:
            for each in self._throttles:
                each.refund(len(page.data))
        self._due_at = None
        if self._request is not None:
            self._request.drop()
            self._request = None
        self._appear()
        self._held.close()

    async def _when_due(self, page: RecordPage, until: float) -> bytes:
        """Return a page when the quotas permit it, or nothing if that is not in time."""
        self._appear()
        if self._due_at is None:
            waits = [each.book(len(page.data)) for each in self._throttles]
            self._due_at = time.monotonic() + max(waits, default=0.0)
        wait = min(self._due_at, until) - time.monotonic()
        if wait > 0:
            await asyncio.wait({self._cut}, timeout=wait)
        self._raise_failure()
        if time.monotonic() < self._due_at:
            return b""
        self._page = self._due_at = None
        self._next = page.position
        return page.frame()

    def note_sent(self) -> None:
        """Count as delivered what was returned."""
        self.position = self._next

    def _appear(self) -> None:
        if self._waiting is not None:
            self._waiting.release()
            self._waiting = None

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure.with_traceback(None)


class RecordFollowers:
    """The clients that follow records, by stream."""

    def __init__(self) -> None:
        self._of: dict[StreamId, set[RecordFollower]] = {}

    def add(self, follower: RecordFollower) -> None:
        """Add a client."""
        self._of.setdefault(follower.stream, set()).add(follower)

    def leave(self, follower: RecordFollower) -> None:
        """Remove a client, and give up what it holds. Idempotent."""
        follower.close()
        found = self._of.get(follower.stream, set())
        found.discard(follower)
        if not found:
            self._of.pop(follower.stream, None)

    def cut(self, stream: StreamId) -> None:
        """Report to all who follow a stream that it was deleted; others go on waiting for it."""
        gone = f"stream {stream} is gone: it was deleted"
        for follower in self._of.get(stream, set()):
            if follower.has_appeared:
                follower.cut(StreamNotFoundError(gone, stream=str(stream)))
