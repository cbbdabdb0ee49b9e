"""Keeps revocations in a stream of the configured backend, which every gateway follows.

The stream is in a tenant that no user's stream can have. It has generations: when most of its
records concern tokens that have ended, a gateway copies the others to a new generation and deletes
the old one. The order of all this is in the design.

Design: docs/design/access.md.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from streamq._errors import BackendError, CapabilityError, FencedError, StreamNotFoundError
from streamq._events import SYSTEM_TENANT, StreamId
from streamq._settings import Settings
from streamq.calling import _calls as calling
from streamq.calling._reads import Reads
from streamq.driver import START, ChunkQueue, Entry
from streamq.opening._open import retry_policy
from streamq.writing._epochs import clock_epoch

from ._moments import moment
from ._revocations import FORMAT, Revocation, RevokedTokens

_PREFIX = "revocations/"
_KEPT = timedelta(days=3_650)
"""Time to live of the stream: longer than tokens live, and renewed by each record."""

REWRITE_SECONDS = 6 * 3_600.0
"""Age at which what is still needed is written again, since some backends keep by age alone."""

_DEAD_RECORDS = 1_000
_DEAD_SHARE = 4
_BATCH = 200
_PAGE_RECORDS = 256
_PAGE_BYTES = 1_048_576
_TRIES = 20
_BEGUN, _MOVED = "begun", "moved"

_logger = logging.getLogger("streamq")


@dataclass(frozen=True, slots=True)
class LogPlace:
    """Where a reader of the log is.

    Attributes:
        generation: Which generation it reads.
        position: After which record.
        records: How many records of this generation it has read.
        begun_at: When the generation began, in seconds since the epoch; 0 if that is not known.
        moved_to: A newer generation, if the log goes on there.
        is_tidy: Whether no older generation was left.
    """

    generation: int
    position: str = START
    records: int = 0
    begun_at: float = 0.0
    moved_to: int | None = None
    is_tidy: bool = True

    def needs_rewriting(self, live: int, now: float) -> bool:
        """Whether what is still needed should be copied to a new generation.

        Args:
            live: How many revocations are still needed.
            now: Seconds since the epoch.
        """
        if not self.records:
            return False
        if self.records > _DEAD_RECORDS + _DEAD_SHARE * live or not self.is_tidy:
            return True
        return bool(live) and now - self.begun_at > REWRITE_SECONDS


def can_keep_revocations(queue: ChunkQueue) -> bool:
    """Whether every gateway can read all that is stored, which revocations need."""
    return queue.capabilities.replay and queue.capabilities.ordered


class RevocationLog:
    """Revocations in a backend.

    Args:
        queue: An open queue.
        settings: How long failures are retried.

    Raises:
        CapabilityError: The backend takes records away when they are read, so that no gateway would
            see all of them.
    """

    def __init__(self, queue: ChunkQueue, settings: Settings) -> None:
        if not can_keep_revocations(queue):
            raise CapabilityError(
                f"backend {queue.backend!r} cannot keep revocations: it has no replay, and each "
                "gateway has to read all of them. Give tokens a short lifetime, or choose another "
                "backend (`streamq backends`)",
                backend=queue.backend,
            )
        self._queue = queue
        self._settings = settings
        self._reads: tuple[StreamId, Reads] | None = None

    async def add(self, revocation: Revocation, place: LogPlace | None = None) -> None:
        """Store a revocation. When this returns, each gateway that can read will see it.

        It is read back, with all that came after ``place``, where a reader of the log already is;
        by default with the whole generation.

        Cancellation and errors: it is stored, or not; repeating the call is harmless.

        Raises:
            StreamqError: The backend cannot be written or read.
        """
        for _ in range(_TRIES):
            found = await self._generations()
            if not found:
                await self._append(1, [_begun(), revocation.to_dict()])
            # A rewriting that was cut off leaves readers in either generation.
            for generation in found:
                await self._append(generation, [revocation.to_dict()])
            newest = found[-1] if found else 1
            begin = place if place is not None and place.generation == newest else LogPlace(newest)
            if not await self._has(begin, revocation):
                continue  # another writer had the same epoch, and this record was taken for its own
            if not await self._exists(newest + 1) and (await self._generations())[-1:] == [newest]:
                return
        raise BackendError(
            f"the revocation was not stored in {_TRIES} attempts, because the log was rewritten "
            "each time; try again",
            backend=self._queue.backend,
        )

    async def load(self, add: Callable[[Revocation], None]) -> LogPlace:
        """Read everything, and return the place to go on from.

        Raises:
            StreamqError: The backend cannot be read.
        """
        while True:
            found = await self._generations()
            place = LogPlace(1)
            for generation in found:
                place = LogPlace(generation, is_tidy=len(found) == 1)
                place = await self._read_to_end(place, add)
            if not found or await self._exists(place.generation):
                return place

    async def follow(
        self, place: LogPlace, add: Callable[[Revocation], None], max_wait: float
    ) -> LogPlace:
        """Read what is new, waiting for it, and return the next place.

        Raises:
            StreamqError: The backend cannot be read.
        """
        after = place
        if after.moved_to is None:
            after = await self._page(place, add, max_wait)
        if after.moved_to is not None:
            return LogPlace(max([after.moved_to, *await self._generations()]))
        if after == place and place.records and not await self._exists(place.generation):
            return await self.load(add)
        return after

    async def rewrite(self) -> None:
        """Copy what is still needed to a new generation, and delete the others.

        Any number of gateways may do it at the same time.

        Cancellation and errors: nothing is lost; a gateway that starts later does it again.
        """
        found = await self._generations()
        if not found:
            return
        newest = found[-1] + 1
        await self._append(newest, [_begun()])
        for generation in found:
            await self._append(generation, [{"kind": _MOVED, "to": newest}])
        known = RevokedTokens()
        # From the oldest on: one that another gateway has just deleted is in the next one by then.
        for generation in found:
            await self._read_to_end(LogPlace(generation), known.add)
        known.forget(time.time())
        needed = [each.to_dict() for each in known]
        for start in range(0, len(needed), _BATCH):
            await self._append(newest, needed[start : start + _BATCH])
        for generation in found:
            await self._run(generation, lambda stream: calling.delete(self._queue, stream))

    async def _read_to_end(self, place: LogPlace, add: Callable[[Revocation], None]) -> LogPlace:
        while True:
            after = await self._page(place, add, 0.0)
            if after == place:
                return after
            place = after

    async def _page(
        self, place: LogPlace, add: Callable[[Revocation], None], max_wait: float
    ) -> LogPlace:
        stream = _stream(place.generation)
        if self._reads is None or self._reads[0] != stream:
            self._reads = stream, Reads(self._queue, stream)
        reads = self._reads[1]
        found = await retry_policy(self._settings, self._queue, stream).run(
            lambda: reads.read(
                place.position,
                max_records=_PAGE_RECORDS,
                max_bytes=_PAGE_BYTES,
                max_wait=max_wait,
            ),
            wait_seconds=max_wait,
        )
        if not found:
            return place
        begun_at, moved_to = place.begun_at, place.moved_to
        for stored in found:
            record = _decoded(stored.data)
            match record.get("kind"):
                case "begun":
                    begun_at = begun_at or moment(record.get("at")) or 0.0
                case "moved":
                    moved_to = int(_number(record.get("to"))) or None
                case _:
                    revocation = Revocation.from_dict(record)
                    if revocation is None:
                        _logger.warning("a record of the revocations is not understood; ignored")
                    else:
                        add(revocation)
        return LogPlace(
            place.generation,
            found[-1].position,
            place.records + len(found),
            begun_at,
            moved_to if moved_to is None or moved_to > place.generation else None,
            place.is_tidy,
        )

    async def _has(self, place: LogPlace, revocation: Revocation) -> bool:
        seen = set[str]()
        await self._read_to_end(place, lambda each: seen.add(each.id))
        return revocation.id in seen

    async def _generations(self) -> list[int]:
        """Return the numbers of the generations, in order."""
        found = []
        listing: AsyncIterator[Any] = calling.streams(self._queue, SYSTEM_TENANT, _PREFIX)
        async with contextlib.aclosing(listing) as infos:  # type: ignore[type-var]
            async for info in infos:
                number = info.stream.name.removeprefix(_PREFIX)
                if number.isascii() and number.isdigit() and len(number) < 16:
                    found.append(int(number))
        return sorted(found)

    async def _exists(self, generation: int) -> bool:
        try:
            await self._run(generation, lambda stream: calling.describe(self._queue, stream))
        except StreamNotFoundError:
            return False
        return True

    async def _append(self, generation: int, records: Sequence[dict[str, object]]) -> None:
        newest = 0
        for _ in range(_TRIES):
            epoch = clock_epoch(newest)
            entries = [
                Entry(epoch, index, _encoded(record, epoch)) for index, record in enumerate(records)
            ]
            try:
                await self._run(
                    generation,
                    lambda stream, entries=entries: calling.append(  # type: ignore[misc]
                        self._queue, stream, entries, ttl=_KEPT
                    ),
                )
                return
            except FencedError:  # another writer was quicker, or its clock is ahead
                newest = await self._newest_epoch(generation)
        raise BackendError(
            f"other writers were quicker in each of {_TRIES} attempts; try again",
            backend=self._queue.backend,
        )

    async def _newest_epoch(self, generation: int) -> int:
        with contextlib.suppress(StreamNotFoundError):
            info = await self._run(
                generation, lambda stream: calling.describe(self._queue, stream, last=1)
            )
            return max(int(_number(_decoded(each.data).get("epoch"))) for each in info.last)
        return 0

    async def _run(self, generation: int, call: Callable[[StreamId], Any]) -> Any:
        stream = _stream(generation)
        return await retry_policy(self._settings, self._queue, stream).run(lambda: call(stream))


def _stream(generation: int) -> StreamId:
    return StreamId(SYSTEM_TENANT, f"{_PREFIX}{generation}")


def _begun() -> dict[str, object]:
    return {"kind": _BEGUN, "at": time.time()}


def _encoded(record: dict[str, object], epoch: int) -> bytes:
    return json.dumps({"format": FORMAT, "epoch": epoch, **record}).encode()


def _decoded(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        return {}
    return found


def _number(value: object) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 <= value < 2**63 else 0.0  # type: ignore[arg-type,operator]
