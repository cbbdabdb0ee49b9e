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


@dataclass(slots=True)
class Taken:
    """A message that others do not see now.

    Attributes:
        receipt: What deletes it.
        data: The record in it.
        hidden_until: Until when others do not see it, by the clock of the loop.
        renewed: Whether that is still put off: until its reader has gone.
    """

    receipt: str
    data: bytes
    hidden_until: float
    renewed: bool = True


Receive = Callable[[str, float], Awaitable[list[Taken]]]
"""Asks SQS for messages: an id for the request, and how long to wait."""


def receipts_of(position: str, stream: StreamId) -> list[str]:
    """Return the receipts that a position carries.

    Raises:
        CursorError: It is none of ours.
    """
    if position == START:
        return []
    receipts = position.split(_SEPARATOR)
    if not all(receipts) or not position.isprintable():
        raise CursorError(
            f"{position[:40]!r} is not a position in an SQS queue",
            backend=BACKEND,
            stream=str(stream),
        )
    return receipts


class Receiver:
    """Takes messages of one queue, one request at a time, and keeps them until they are settled.

    A request that nobody waits for any more goes on, and what it brings is kept: a cancelled read
    would otherwise hide messages from everybody.
    """

    def __init__(self, stream: StreamId, receive: Receive) -> None:
        self.taken: dict[str, Taken] = {}
        self._stream = stream
        self._receive = receive
        self._request: asyncio.Task[list[Taken]] | None = None
        self._empty = 0
        self._clock = asyncio.get_running_loop().time

    async def read(self, after: str, max_records: int, max_bytes: int, wait: float) -> list[Stored]:
        """Return messages behind a position: those that were taken already, or new ones."""
        before = receipts_of(after, self._stream)
        self._forget_shown()
        if not (rest := self._behind(before)):
            await self._take(after, wait)
            rest = self._behind(before)
        found: list[Stored] = []
        receipts = [receipt for receipt in before if receipt in self.taken]
        size = 0
        for each in rest[:max_records]:
            size += len(each.data)
            if found and size > max_bytes:
                break
            receipts.append(each.receipt)
            each.renewed = True
            found.append(Stored(_SEPARATOR.join(receipts), each.data))
        return found

    def settle(self, receipts: Sequence[str]) -> None:
        """Forget messages that have been deleted, or that somebody else has by now."""
        for receipt in receipts:
            self.taken.pop(receipt, None)

    def leave(self, after: str) -> list[str]:
        """A reader has gone: return what it did not deliver, and renew nothing any more."""
        before = set(receipts_of(after, self._stream))
        for each in self.taken.values():
            each.renewed = False
        left = [receipt for receipt in self.taken if receipt not in before]
        self.settle(left)
        return left

    def to_renew(self) -> list[Taken]:
        """Return the messages of readers that are at work."""
        return [each for each in self.taken.values() if each.renewed]

    @property
    def is_idle(self) -> bool:
        """Whether nothing would be lost by forgetting it."""
        return not self.taken and self._request is None

    async def aclose(self) -> None:
        """Give up a request under way; messages that it brings come again after their time-out."""
        if self._request is not None:
            self._request.cancel()
            await asyncio.gather(self._request, return_exceptions=True)

    def _behind(self, before: Sequence[str]) -> list[Taken]:
        known = set(before)
        return [each for receipt, each in self.taken.items() if receipt not in known]

    def _forget_shown(self) -> None:
        now = self._clock()
        self.settle([r for r, each in self.taken.items() if each.hidden_until <= now])

    async def _take(self, after: str, wait: float) -> None:
        if self._request is None:
            name = f"{self._stream} {after} {self._empty}".encode()
            request_id = hashlib.blake2b(name, digest_size=16).hexdigest()
            self._request = asyncio.ensure_future(self._receive(request_id, wait))
            # Perhaps nobody is there any more to be told.
            self._request.add_done_callback(lambda task: task.cancelled() or task.exception())
        request = self._request
        done, _ = await asyncio.wait({request}, timeout=wait if wait else None)
        if not done or self._request is not request:
            return  # it goes on; or another read has taken what it brought
        self._request = None
        found = request.result()
        self._empty = 0 if found else self._empty + 1
        for each in found:
            self.taken[each.receipt] = each
