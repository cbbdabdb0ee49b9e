"""What this process has taken from one queue and nobody has acknowledged yet."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from streamq.driver import START, CursorError, Stored, StreamId

from ._errors import BACKEND

MOST_AT_ONCE = 10
"""Messages that SQS gives out, takes in or deletes with one request."""

_SEPARATOR = " "
_KIND = "sqs"
_SLACK_SECONDS = 0.3  # an answer at the very end of the wait is awaited still


@dataclass(slots=True)
class Taken:
    """A message that others do not see now.

    Attributes:
        receipt: What deletes it.
        data: The record in it.
        hidden_until: Until when others do not see it, by the clock of the loop.
        held_until: For how long that may be put off.
    """

    receipt: str
    data: bytes
    hidden_until: float
    held_until: float


Receive = Callable[[str, float], Awaitable[list[Taken]]]
"""Asks SQS for messages: an id for the request, and how long to wait."""

GiveBack = Callable[[list[str]], Awaitable[None]]
"""Makes messages visible for others at once."""


def receipts_of(position: str, stream: StreamId) -> list[str]:
    """Return the receipts that a position carries.

    Raises:
        CursorError: It is none of ours.
    """
    if position == START:
        return []
    kind, *receipts = position.split(_SEPARATOR)
    if kind != _KIND or not receipts or not all(receipts) or not position.isprintable():
        raise CursorError(
            f"{position[:40]!r} is not a position in an SQS queue",
            backend=BACKEND,
            stream=str(stream),
        )
    return receipts


class Receiver:
    """Takes messages of one queue, one request at a time, and keeps them until they are settled.

    A request that nobody waits for any more goes on, since what it brings would be hidden from
    everybody: it is kept for the reader's next call, or given back if the reader has gone.

    Args:
        stream: Whose queue it is.
        receive: How to take messages.
        give_back: How to let others have them.
    """

    def __init__(self, stream: StreamId, receive: Receive, give_back: GiveBack) -> None:
        self._stream = stream
        self._receive = receive
        self._give_back = give_back
        self._taken: dict[str, Taken] = {}
        self._request: asyncio.Task[None] | None = None
        self._waiting = 0
        self._has_left = False
        self._empty = 0
        self._clock = asyncio.get_running_loop().time

    async def read(self, after: str, max_records: int, max_bytes: int, wait: float) -> list[Stored]:
        """Return messages behind a position: those that were taken already, or new ones."""
        before = receipts_of(after, self._stream)
        self._has_left = False
        self.forget_shown()
        if not (rest := self._behind(before)):
            await self._take(after, wait)
            rest = self._behind(before)
        found: list[Stored] = []
        receipts = [_KIND, *(receipt for receipt in before if receipt in self._taken)]
        size = 0
        for each in rest[:max_records]:
            size += len(each.data)
            if found and size > max_bytes:
                break
            receipts.append(each.receipt)
            found.append(Stored(_SEPARATOR.join(receipts), each.data))
        return found

    def settle(self, receipts: Sequence[str]) -> None:
        """Forget messages that have been deleted, or that somebody else has by now."""
        for receipt in receipts:
            self._taken.pop(receipt, None)

    def leave(self, after: str) -> list[str]:
        """A reader has gone: forget everything, and return what it did not deliver.

        What it delivered stays hidden until it is acknowledged, or the time-out has passed.
        """
        before = set(receipts_of(after, self._stream))
        self._has_left = True
        left = [receipt for receipt in self._taken if receipt not in before]
        self._taken.clear()
        return left

    def to_renew(self) -> list[Taken]:
        """Return the messages of readers that are at work."""
        now = self._clock()
        return [each for each in self._taken.values() if each.held_until > now]

    def forget_shown(self) -> None:
        """Forget messages that others can have now."""
        now = self._clock()
        self.settle([r for r, each in self._taken.items() if each.hidden_until <= now])

    @property
    def is_idle(self) -> bool:
        """Whether nothing would be lost by forgetting it."""
        return not self._taken and self._request is None and not self._waiting

    async def aclose(self) -> None:
        """Give up a request under way; messages that it brings come again after their time-out."""
        if self._request is not None:
            self._request.cancel()
            await asyncio.wait({self._request})

    def _behind(self, before: Sequence[str]) -> list[Taken]:
        known = set(before)
        return [each for receipt, each in self._taken.items() if receipt not in known]

    async def _take(self, after: str, wait: float) -> None:
        timeout: float | None = wait + _SLACK_SECONDS
        if self._request is None:
            # Who repeats a request after a crash makes the same id of the same place. After an
            # empty answer it is another one: AWS does not say that an id which brought nothing is
            # free again, and if its answer were remembered, nothing would come for five minutes.
            name = f"{self._stream} {after} {self._empty}".encode()
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
            request.exception()  # perhaps nobody is there any more to be told

    async def _make_request(self, request_id: str, wait: float) -> None:
        found = await self._receive(request_id, wait)
        if found and self._has_left and not self._waiting:
            await self._give_back([each.receipt for each in found])
            return
        self._empty = 0 if found else self._empty + 1
        self._taken.update({each.receipt: each for each in found})
