"""Receives the messages of one queue and keeps them until they are acknowledged."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence

from streamq.driver import Stored, StreamId
from streamq_sqs._messages import HeldMessage

from ._positions import position_of, receipts_of

_SLACK_SECONDS = 0.3  # an answer at the very end of the wait still counts

Receive = Callable[[str, float], Awaitable[list[HeldMessage]]]
"""Receives messages; the arguments are an id for the request and how many seconds to wait."""

GiveBack = Callable[[list[str]], Awaitable[None]]
"""Makes messages visible to others at once, by their receipts."""


class Receiver:
    """Sends one receive request at a time, and keeps its messages until they are settled.

    A request goes on if its reader stops waiting, because its messages would be hidden from
    everybody. They are kept for the reader's next call, or given back if the reader has left.

    Args:
        stream: The stream that the queue holds.
        receive: Receives messages.
        give_back: Gives messages back.
    """

    def __init__(self, stream: StreamId, receive: Receive, give_back: GiveBack) -> None:
        self._stream = stream
        self._receive = receive
        self._give_back = give_back
        self._held: dict[str, HeldMessage] = {}
        self._request: asyncio.Task[None] | None = None
        self._waiting = 0
        self._has_left = False
        self._empty_answers = 0
        self._clock = asyncio.get_running_loop().time

    async def read(self, after: str, max_records: int, max_bytes: int, wait: float) -> list[Stored]:
        """Return messages after a position: those that are held already, or else new ones."""
        before = receipts_of(after, self._stream)
        self._has_left = False
        self.forget_visible()
        if not (rest := self._held_besides(before)):
            await self._request_more(after, wait)
            rest = self._held_besides(before)
        found: list[Stored] = []
        receipts = [receipt for receipt in before if receipt in self._held]
        size = 0
        for each in rest[:max_records]:
            size += len(each.data)
            if found and size > max_bytes:
                break
            receipts.append(each.receipt)
            found.append(Stored(position_of(receipts), each.data))
        return found

    def settle(self, receipts: Sequence[str]) -> None:
        """Forget messages that have been deleted, or that another reader has by now."""
        for receipt in receipts:
            self._held.pop(receipt, None)

    def leave(self, after: str) -> list[str]:
        """Forget everything because the reader has left; return receipts that it did not deliver.

        What it delivered stays hidden until it is acknowledged or its time-out has passed.
        """
        before = set(receipts_of(after, self._stream))
        self._has_left = True
        left = [receipt for receipt in self._held if receipt not in before]
        self._held.clear()
        return left

    def to_renew(self) -> list[HeldMessage]:
        """Return the messages whose time-out may be extended."""
        now = self._clock()
        return [each for each in self._held.values() if each.held_until > now]

    def forget_visible(self) -> None:
        """Forget messages that SQS shows to others again."""
        now = self._clock()
        self.settle([r for r, each in self._held.items() if each.hidden_until <= now])

    @property
    def is_idle(self) -> bool:
        """Whether forgetting this receiver would lose nothing."""
        return not self._held and self._request is None and not self._waiting

    async def aclose(self) -> None:
        """Cancel the request under way; SQS shows its messages again after their time-out."""
        if self._request is not None:
            self._request.cancel()
            await asyncio.wait({self._request})

    def _held_besides(self, before: Sequence[str]) -> list[HeldMessage]:
        known = set(before)
        return [each for receipt, each in self._held.items() if receipt not in known]

    async def _request_more(self, after: str, wait: float) -> None:
        timeout: float | None = wait + _SLACK_SECONDS
        if self._request is None:
            # After a crash, the next process makes the same id for the same position. After an
            # empty answer the id is another one: AWS does not document whether it remembers empty
            # answers. If it did, the same id would return nothing for five minutes.
            name = f"{self._stream} {after} {self._empty_answers}".encode()
            request_id = hashlib.blake2b(name, digest_size=16).hexdigest()
            self._request = asyncio.create_task(
                self._make_request(request_id, wait), name="streamq-sqs request"
            )
            self._request.add_done_callback(self._finished)
            if not wait:
                timeout = None  # SQS answers at once
        request = self._request
        self._waiting += 1
        try:
            done, _ = await asyncio.wait({request}, timeout=timeout)
        finally:
            self._waiting -= 1
        if done and not request.cancelled():
            request.result()

    def _finished(self, request: asyncio.Task[None]) -> None:
        self._request = None
        if not request.cancelled():
            request.exception()  # the reader may have gone, and asyncio would warn

    async def _make_request(self, request_id: str, wait: float) -> None:
        found = await self._receive(request_id, wait)
        if found and self._has_left and not self._waiting:
            await self._give_back([each.receipt for each in found])
            return
        self._empty_answers = 0 if found else self._empty_answers + 1
        self._held.update({each.receipt: each for each in found})
