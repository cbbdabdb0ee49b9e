"""Extends the visibility time-outs of messages that slow readers hold."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from streamq.driver import StreamId, StreamqError, together
from streamq_sqs._lookup import QueueLookup
from streamq_sqs._messages import MOST_AT_ONCE, HeldMessage
from streamq_sqs._requests import SqsRequests

from ._receiver import Receiver

_logger = logging.getLogger("streamq.sqs")


class VisibilityRenewal:
    """Renews in rounds, for all streams at once.

    A request without an answer delays no other stream: only its own messages are lost to others.

    Args:
        requests: The requests to SQS.
        lookup: The queues of streams.
        receivers: The receivers whose messages are renewed.
        drop_if_idle: Drops the receiver of a stream if it holds nothing.
        visibility_seconds: For how long SQS hides a message from others.
        at_once: Most renewal requests under way.
    """

    def __init__(
        self,
        requests: SqsRequests,
        lookup: QueueLookup,
        receivers: Mapping[StreamId, Receiver],
        drop_if_idle: Callable[[StreamId], None],
        *,
        visibility_seconds: int,
        at_once: int,
    ) -> None:
        self._requests = requests
        self._lookup = lookup
        self._receivers = receivers
        self._drop_if_idle = drop_if_idle
        self._seconds = visibility_seconds
        self._turns = asyncio.Semaphore(at_once)
        self._clock = asyncio.get_running_loop().time

    async def run(self) -> None:
        """Renew until cancelled."""
        due = self._clock()
        while True:
            # A round may last until the next one is due, so the time counts from its beginning.
            due = max(due + self._seconds / 3, self._clock())
            await asyncio.sleep(due - self._clock())
            await together(self._renew(*each) for each in list(self._receivers.items()))

    async def _renew(self, stream: StreamId, receiver: Receiver) -> None:
        receiver.forget_visible()
        held = receiver.to_renew()
        parts = [held[at : at + MOST_AT_ONCE] for at in range(0, len(held), MOST_AT_ONCE)]
        await together(self._extend(stream, receiver, part) for part in parts)
        self._drop_if_idle(stream)

    async def _extend(
        self, stream: StreamId, receiver: Receiver, held: Sequence[HeldMessage]
    ) -> None:
        """Extend the time-outs of as many messages as fit into one request.

        What fails is tried again in the next round, or becomes visible to others. A request fails
        after a third of the time-out. Another third is left for the requests that wait for their
        turn behind it, and for the next round.
        """
        try:
            async with self._turns, asyncio.timeout(self._seconds / 3):
                url = await self._lookup.url(stream)
                # A message that was given back while this waited for its turn stays visible.
                still_held = {each.receipt for each in receiver.to_renew()}
                receipts = [each.receipt for each in held if each.receipt in still_held]
                if url is None or not receipts:
                    return
                until = self._clock() + self._seconds
                hidden = await self._requests.hide(url, receipts, self._seconds)
            done = set(hidden.done)
            for each in held:
                if each.receipt in done:
                    each.hidden_until = until
            receiver.settle(hidden.useless)
        except (StreamqError, TimeoutError):
            return
        except Exception:
            # A defect here must not end the renewals of all other readers.
            _logger.exception("cannot keep what a reader of stream %s has taken", stream)
