"""The readers of a process: what they have taken is kept for them, and given back when they go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence

from streamq.driver import START, StreamId, StreamNotFoundError, StreamqError
from streamq_aws import together

from ._receiver import MOST_AT_ONCE, Receiver, Taken
from ._service import Service

_logger = logging.getLogger("streamq.sqs")


class Readers:
    """The receivers of all streams that are read here.

    One task of its own puts off the visibility time-out of slow readers: of all streams together,
    so that a request without an answer costs none but the messages that it was about.

    Args:
        service: Where.
        url: Says where a stream's queue is, if there is one.
        visibility_seconds: For how long what was taken is hidden from others.
        renewals_at_once: Most requests that put it off and are under way.
    """

    def __init__(
        self,
        service: Service,
        url: Callable[[StreamId], Awaitable[str | None]],
        *,
        visibility_seconds: int,
        renewals_at_once: int,
    ) -> None:
        self._service = service
        self._url = url
        self._seconds = visibility_seconds
        self._receivers: dict[StreamId, Receiver] = {}
        self._renewing: asyncio.Task[None] | None = None
        self._renewals = asyncio.Semaphore(renewals_at_once)
        self._clock = asyncio.get_running_loop().time

    def start(self) -> None:
        """Begin to put time-outs off."""
        self._renewing = asyncio.create_task(self._renew(), name="streamq-sqs visibility")

    async def aclose(self) -> None:
        """End, with all requests under way; what was taken comes again after its time-out."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait({self._renewing})
        await asyncio.gather(*(each.aclose() for each in self._receivers.values()))

    def of(self, stream: StreamId) -> Receiver:
        """Return the receiver of a stream."""
        receiver = self._receivers.get(stream)
        if receiver is None:

            async def receive(request_id: str, wait: float) -> list[Taken]:
                url = await self._url(stream)
                if url is None:
                    return []
                found = await self._service.receive(url, request_id, wait)
                await self._remove_foreign(stream, url, found.foreign)
                return found.taken

            async def give_back(receipts: list[str]) -> None:
                with contextlib.suppress(StreamqError):  # then they come again by themselves
                    await self._give_back(stream, receipts)

            receiver = self._receivers[stream] = Receiver(stream, receive, give_back)
        return receiver

    def settle(self, stream: StreamId, receipts: Sequence[str]) -> None:
        """Forget messages of a stream that have been deleted."""
        receiver = self._receivers.get(stream)
        if receiver is not None:
            receiver.settle(receipts)

    async def release(self, stream: StreamId, after: str) -> None:
        """Give back what the reader of a stream, which goes, has not delivered."""
        receiver = self._receivers.get(stream)
        if receiver is not None:
            await self._give_back(stream, receiver.leave(after))
            self._drop_if_idle(stream)

    def forget(self, stream: StreamId) -> None:
        """A stream is gone, and with it all that was taken."""
        receiver = self._receivers.get(stream)
        if receiver is not None:
            receiver.leave(START)
            self._drop_if_idle(stream)

    def _drop_if_idle(self, stream: StreamId) -> None:
        receiver = self._receivers.get(stream)
        if receiver is not None and receiver.is_idle:
            del self._receivers[stream]

    async def _give_back(self, stream: StreamId, receipts: Sequence[str]) -> None:
        url = await self._url(stream) if receipts else None
        if url is not None:
            with contextlib.suppress(StreamNotFoundError):
                await self._service.hide(url, receipts, 0)

    async def _remove_foreign(self, stream: StreamId, url: str, receipts: Sequence[str]) -> None:
        """Delete what nobody reads: it would come again for ever, and the stream never be empty."""
        if not receipts:
            return
        _logger.warning(
            "deleting %d messages from the queue of stream %s that are none of streamq's; nothing "
            "else may send to it",
            len(receipts),
            stream,
        )
        with contextlib.suppress(StreamqError):  # then it comes again
            await self._service.remove(stream, url, receipts)

    async def _renew(self) -> None:
        """Keep what slow readers have taken from being given to others."""
        due = self._clock()
        while True:
            # Counted from when the last round began: it may have lasted until the next is due.
            due = max(due + self._seconds / 3, self._clock())
            await asyncio.sleep(due - self._clock())
            await together(self._renew_for(*each) for each in list(self._receivers.items()))

    async def _renew_for(self, stream: StreamId, receiver: Receiver) -> None:
        receiver.forget_shown()
        taken = receiver.to_renew()
        parts = [taken[at : at + MOST_AT_ONCE] for at in range(0, len(taken), MOST_AT_ONCE)]
        await together(self._put_off(stream, receiver, part) for part in parts)
        self._drop_if_idle(stream)

    async def _put_off(self, stream: StreamId, receiver: Receiver, taken: Sequence[Taken]) -> None:
        """Renew what one request can; what has failed is tried in the next round, or comes again.

        After a third of the time-out it has failed: another third is left for those that wait
        behind it, and for the next round.
        """
        try:
            async with self._renewals, asyncio.timeout(self._seconds / 3):
                url = await self._url(stream)
                # What was given back while this waited for its turn must be left to others.
                kept = {each.receipt for each in receiver.to_renew()}
                receipts = [each.receipt for each in taken if each.receipt in kept]
                if url is None or not receipts:
                    return
                until = self._clock() + self._seconds
                hidden = await self._service.hide(url, receipts, self._seconds)
            done = set(hidden.done)
            for each in taken:
                if each.receipt in done:
                    each.hidden_until = until
            receiver.settle(hidden.useless)
        except (StreamqError, TimeoutError):
            return
        except Exception:
            # Whatever it is, the other readers must not lose what they have for it.
            _logger.exception("cannot keep what a reader of stream %s has taken", stream)
