"""Keeps where listed streams stand, so that a list that is polled asks little of the backend.

Design: docs/design/page.md.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from streamq._errors import StreamNotFoundError, StreamqError
from streamq._events import Seal, StreamId
from streamq._settings import Settings
from streamq.driver import ChunkQueue, StreamInfo
from streamq.opening._open import retry_policy
from streamq.reading._oldest import oldest_epoch
from streamq.reading._tail import read_tail

from ._clients import Client
from ._log_limit import gateway_logger
from ._questions import Questions

_logger = gateway_logger()

_MOST_KEPT = 8_192
_MOST_ASKED = 128
_SECONDS = 1.0
_FRESH_SECONDS = 2.0
_STALE_SECONDS = 60.0
_MOST_FOLDED_BYTES = 1_048_576
_SAME_EXPIRY_SECONDS = 1.0
_FIRST_EPOCH = 10**15  # in 2001: smaller numbers are no clock
_DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class StreamDetails:
    """Where a stream stands.

    Attributes:
        attempt: The newest attempt, from 1.
        offset: Offset of the newest event.
        seal: The ending, or ``None`` while the stream is open.
        opened_at: When its first stored attempt began, in seconds since 1970, by the producer's
            clock; ``None`` if the epochs are no times.
        attempt_opened_at: The same of its newest attempt.
    """

    attempt: int
    offset: int
    seal: Seal | None
    opened_at: float | None
    attempt_opened_at: float | None


@dataclass(frozen=True, slots=True)
class _Kept:
    details: StreamDetails | None  # None if it could not be learned
    info: StreamInfo
    at: float


class StreamsDetails:
    """Describes listed streams again only if the list shows that they have changed.

    Args:
        questions: Asks the backend, in turn for each client.
        settings: How long a question may take.
    """

    def __init__(self, questions: Questions, settings: Settings) -> None:
        self._questions = questions
        self._settings = settings
        self._kept: OrderedDict[StreamId, _Kept] = OrderedDict()

    async def of(
        self, infos: Iterable[StreamInfo], client: Client
    ) -> tuple[dict[StreamId, StreamDetails], bool]:
        """Return details of streams, and whether they are those of all.

        At most 128 streams are described anew for one answer, within a second; the next answer goes
        on. A stream that changed within the last two seconds may be shown as it was before.

        Args:
            infos: The streams as they are listed now, the most important ones first.
            client: Who asks.

        Cancellation: what has been learned is kept.
        """
        listed = list(infos)
        due = [info for info in listed if self._is_due(info)]
        if due:
            await self._learn(due[:_MOST_ASKED], client)
        found = {}
        for info in listed:
            kept = self._kept.get(info.stream)
            if kept is not None:
                self._kept.move_to_end(info.stream)
            if kept is not None and kept.details is not None:
                found[info.stream] = kept.details
        while len(self._kept) > _MOST_KEPT:
            self._kept.popitem(last=False)
        return found, len(due) <= _MOST_ASKED and not any(map(self._is_due, due))

    def _is_due(self, info: StreamInfo) -> bool:
        kept = self._kept.get(info.stream)
        if kept is None:
            return True
        age = time.monotonic() - kept.at
        if kept.details is None:
            return age > _STALE_SECONDS
        is_old = age > _STALE_SECONDS and kept.details.seal is None
        return age > _FRESH_SECONDS and (is_old or _has_changed(kept.info, info, kept.details, age))

    async def _learn(self, infos: list[StreamInfo], client: Client) -> None:
        try:
            async with asyncio.timeout(_SECONDS), asyncio.TaskGroup() as group:
                for info in infos:
                    group.create_task(self._learn_one(info, client))
        except TimeoutError:
            return

    async def _learn_one(self, info: StreamInfo, client: Client) -> None:
        details = None
        try:
            async with self._questions.ask(client) as queue:
                if _is_cheap(queue, info):
                    details = await _details(queue, info.stream, self._settings)
        except StreamNotFoundError:
            self._kept.pop(info.stream, None)
            return
        except StreamqError as exc:  # one stream that cannot be read hides no other
            _logger.debug("details of stream %s are not known: %s", info.stream, exc)
            if exc.retryable:
                return  # the next answer tries again
        self._kept[info.stream] = _Kept(details, info, time.monotonic())


def _has_changed(
    before: StreamInfo, now: StreamInfo, details: StreamDetails, seconds: float
) -> bool:
    """Whether the list shows that a stream was written to, or may have been."""
    if (before.records, before.size_bytes) != (now.records, now.size_bytes):
        return True
    if before.expires_in is None or now.expires_in is None:
        return now.records is None and details.seal is None
    moved = now.expires_in.total_seconds() - before.expires_in.total_seconds() + seconds
    return abs(moved) > _SAME_EXPIRY_SECONDS  # every append restarts the time to live


def _is_cheap(queue: ChunkQueue, info: StreamInfo) -> bool:
    """Whether a stream is described without reading much of it."""
    if queue.capabilities.fenced:
        return True
    return info.size_bytes is not None and info.size_bytes <= _MOST_FOLDED_BYTES


async def _details(queue: ChunkQueue, stream: StreamId, settings: Settings) -> StreamDetails:
    tail = await read_tail(queue, stream, retry_policy(settings, queue, stream))
    newest = tail.state.epoch
    first = newest if tail.state.attempt <= 1 else await oldest_epoch(queue, stream)
    return StreamDetails(
        attempt=tail.state.attempt,
        offset=tail.state.offset,
        seal=tail.state.seal,
        opened_at=_time_of(first),
        attempt_opened_at=_time_of(newest),
    )


def _time_of(epoch: int) -> float | None:
    """Return an epoch in seconds since 1970, unless a program has numbered its attempts itself."""
    seconds = epoch / 1e6
    return seconds if epoch > _FIRST_EPOCH and seconds < time.time() + _DAY_SECONDS else None
