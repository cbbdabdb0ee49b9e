"""Reads the streams of this process, with one receiver for each of them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from streamq.driver import START, Stored, StreamId, StreamNotFoundError, StreamqError
from streamq_sqs._lookup import QueueLookup
from streamq_sqs._messages import HeldMessage
from streamq_sqs._requests import SqsRequests

from ._receiver import Receiver
from ._renewal import VisibilityRenewal

_logger = logging.getLogger("streamq.sqs")


class Readers:
    """The receivers of all streams that are read in this process.

    Args:
        requests: The requests to SQS.
        lookup: The queues of streams.
        visibility_seconds: For how long SQS hides a received message from others.
        renewals_at_once: Most requests under way that extend this time.
    """

    def __init__(
        self,
        requests: SqsRequests,
        lookup: QueueLookup,
        *,
        visibility_seconds: int,
        renewals_at_once: int,
    ) -> None:
        self._requests = requests
        self._lookup = lookup
        self._receivers: dict[StreamId, Receiver] = {}
        self._renewal = VisibilityRenewal(
            requests,
            lookup,
            self._receivers,
            self._drop_if_idle,
            visibility_seconds=visibility_seconds,
            at_once=renewals_at_once,
        )
        self._renewing: asyncio.Task[None] | None = None
        self._clock = asyncio.get_running_loop().time

    def start(self) -> None:
        """Begin to extend visibility time-outs."""
        self._renewing = asyncio.create_task(self._renewal.run(), name="streamq-sqs visibility")

    async def aclose(self) -> None:
        """Cancel all requests; SQS shows held messages again after their time-out."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait({self._renewing})
        await asyncio.gather(*(each.aclose() for each in self._receivers.values()))

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        """Return records after a position, by the rules of :meth:`ChunkQueue.read`."""
        until, pause = self._clock() + max_wait, self._lookup.first_pause
        while True:
            found: list[Stored] = []
            if await self._lookup.wait_for_queue(stream, max(until - self._clock(), 0.0)):
                left = max(until - self._clock(), 0.0)
                try:
                    found = await self._receiver(stream).read(after, max_records, max_bytes, left)
                except StreamNotFoundError:
                    # The queue is deleted; it is waited for as if it had never existed. On AWS its
                    # name may lead to its URL for another minute, so only the pause limits the
                    # number of requests.
                    self.forget(stream)
                    pause = await self._lookup.pause(stream, pause, until)
            if found or self._clock() >= until:
                return found

    def settle(self, stream: StreamId, receipts: Sequence[str]) -> None:
        """Forget messages of a stream that have been deleted."""
        receiver = self._receivers.get(stream)
        if receiver is not None:
            receiver.settle(receipts)

    async def release(self, stream: StreamId, after: str) -> None:
        """Give back what the leaving reader of a stream has not delivered."""
        receiver = self._receivers.get(stream)
        if receiver is not None:
            await self._give_back(stream, receiver.leave(after))
            self._drop_if_idle(stream)

    def forget(self, stream: StreamId) -> None:
        """Forget a stream whose queue is gone: the queue and its messages."""
        self._lookup.forget(stream)
        receiver = self._receivers.get(stream)
        if receiver is not None:
            receiver.leave(START)
            self._drop_if_idle(stream)

    def _receiver(self, stream: StreamId) -> Receiver:
        receiver = self._receivers.get(stream)
        if receiver is None:

            async def receive(request_id: str, wait: float) -> list[HeldMessage]:
                url = await self._lookup.url(stream)
                if url is None:
                    return []
                found = await self._requests.receive(url, request_id, wait)
                await self._remove_foreign(stream, url, found.foreign)
                return found.messages

            async def give_back(receipts: list[str]) -> None:
                with contextlib.suppress(StreamqError):  # SQS shows them after their time-out
                    await self._give_back(stream, receipts)

            receiver = self._receivers[stream] = Receiver(stream, receive, give_back)
        return receiver

    def _drop_if_idle(self, stream: StreamId) -> None:
        receiver = self._receivers.get(stream)
        if receiver is not None and receiver.is_idle:
            del self._receivers[stream]

    async def _give_back(self, stream: StreamId, receipts: Sequence[str]) -> None:
        url = await self._lookup.url(stream) if receipts else None
        if url is not None:
            with contextlib.suppress(StreamNotFoundError):
                await self._requests.hide(url, receipts, 0)

    async def _remove_foreign(self, stream: StreamId, url: str, receipts: Sequence[str]) -> None:
        """Delete messages of others: they would be received for ever, the queue never be empty."""
        if not receipts:
            return
        _logger.warning(
            "deleting %d messages from the queue of stream %s that are none of streamq's; nothing "
            "else may send to it",
            len(receipts),
            stream,
        )
        with contextlib.suppress(StreamqError):  # the next receive request brings them again
            await self._requests.remove(stream, url, receipts)
