"""Following hosts: one long poll for each stream, however many readers of this process wait."""

from __future__ import annotations

import asyncio
import base64
import json
from collections import deque
from collections.abc import Callable

import temporalio.api.common.v1 as common

from streamq.driver import (
    BackendError,
    Stored,
    StreamId,
    StreamNotFoundError,
    StreamqError,
    decode_position,
)

from ._errors import BACKEND, HostBusyError
from ._frontend import Frontend, as_json

Key = tuple[int, int]

_POLL = "__temporal_workflow_stream_poll"
_DRAINING, _TRUNCATED = "StreamDraining", "TruncatedOffset"
_KEPT_BYTES = 262_144
_RECORD_OVERHEAD_BYTES = 64
_IDLE_SECONDS = 60.0
_ROLLOVER_SECONDS = 0.02


class Tail:
    """The newest records of a stream that is being followed.

    Args:
        floor: No record after this key is missing here.
        offset: The host's number of the next record.
        now: The loop's time.
    """

    def __init__(self, floor: Key, offset: int, now: float) -> None:
        self.offset = offset
        self.used = now
        self.error: StreamqError | None = None
        self.is_over = False
        self._floor = floor
        self._records: deque[tuple[Key, Stored]] = deque()
        self._size = 0
        self._changed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def covers(self, start: Key) -> bool:
        """Whether it has everything after a key, and will have what comes."""
        return not self.is_over and start >= self._floor

    def after(self, start: Key, max_records: int, max_bytes: int) -> list[Stored]:
        """Return what it has after a key, within bounds but at least one if there is one."""
        found: list[Stored] = []
        for key, record in self._records:
            if key <= start:
                continue
            max_bytes -= len(record.data)
            if found and (max_bytes < 0 or len(found) >= max_records):
                break
            found.append(record)
        return found

    def add(self, key: Key, record: Stored) -> None:
        """Take a record in, and forget old ones where that is too much."""
        self._records.append((key, record))
        self._size += len(record.data) + _RECORD_OVERHEAD_BYTES
        while self._size > _KEPT_BYTES and len(self._records) > 1:
            self._floor, gone = self._records.popleft()
            self._size -= len(gone.data) + _RECORD_OVERHEAD_BYTES

    def wake(self) -> None:
        """Let everybody who waits look again."""
        changed, self._changed = self._changed, asyncio.get_running_loop().create_future()
        changed.set_result(None)

    async def wait(self, seconds: float) -> None:
        """Wait until something has changed.

        Raises:
            StreamqError: Following has failed.
        """
        changed = self._changed
        self.used = asyncio.get_running_loop().time() + seconds
        await asyncio.wait((changed,), timeout=seconds)
        if self.error is not None:
            raise self.error


class Tails:
    """The streams that a queue follows; each for as long as somebody reads it, and a minute."""

    def __init__(self, frontend: Frontend, busy_seconds: float) -> None:
        self._frontend = frontend
        self._busy_seconds = busy_seconds
        self._tails: dict[StreamId, tuple[Tail, asyncio.Task[None]]] = {}
        self._now: Callable[[], float] = asyncio.get_running_loop().time

    def find(self, stream: StreamId) -> Tail | None:
        """Return the tail of a stream, if it is being followed."""
        found = self._tails.get(stream)
        return None if found is None else found[0]

    def attach(self, stream: StreamId, floor: Key, offset: int) -> Tail:
        """Follow a stream from an offset, before which nothing comes after the key."""
        tail = self.find(stream)
        if tail is not None:
            if tail.covers(floor):
                return tail
            self.drop(stream)
        tail = Tail(floor, offset, self._now())
        task = asyncio.get_running_loop().create_task(
            self._follow(stream, tail), name=f"streamq-tail {stream}"
        )
        self._tails[stream] = (tail, task)
        return tail

    def drop(self, stream: StreamId) -> None:
        """Follow a stream no more, and let who waits ask the host."""
        found = self._tails.pop(stream, None)
        if found is not None:
            tail, task = found
            task.cancel()
            self._end(tail)

    def close(self, error: StreamqError) -> list[asyncio.Task[None]]:
        """Fail everybody who waits; return the tasks that are ending."""
        ending = list(self._tails.values())
        self._tails.clear()
        for tail, task in ending:
            task.cancel()
            self._end(tail, error)
        return [task for _, task in ending]

    @staticmethod
    def _end(tail: Tail, error: StreamqError | None = None) -> None:
        if not tail.is_over:
            tail.is_over, tail.error = True, error
            tail.wake()

    async def _follow(self, stream: StreamId, tail: Tail) -> None:
        error: StreamqError | None = None
        try:
            while self._now() < tail.used + _IDLE_SECONDS and await self._poll(stream, tail):
                pass
        except HostBusyError:
            # Readers ask by queries then, again and again, as long as it has to be.
            await asyncio.sleep(self._busy_seconds)
        except StreamNotFoundError:
            pass  # so that they ask, and see it for themselves
        except StreamqError as exc:
            error = exc
        if self.find(stream) is tail:
            del self._tails[stream]
        self._end(tail, error)

    async def _poll(self, stream: StreamId, tail: Tail) -> bool:
        """Wait for news once; false if the tail cannot go on from here."""
        request = as_json({"topics": [], "from_offset": tail.offset})
        outcome = await self._frontend.long_poll(stream, _POLL, request)
        if outcome.HasField("failure"):
            kind = outcome.failure.application_failure_info.type
            if kind == _DRAINING:
                await asyncio.sleep(_ROLLOVER_SECONDS)
                return True
            if kind == _TRUNCATED or not kind:
                return False
            raise BackendError(
                f"the host workflow refused to be followed: {outcome.failure.message}",
                backend=BACKEND,
                stream=str(stream),
            )
        result = json.loads(outcome.success.payloads[0].data)
        for item in result["items"]:
            payload = common.Payload.FromString(base64.b64decode(item["data"]))
            key = decode_position(item["topic"], backend=BACKEND, stream=stream)
            tail.add(key, Stored(item["topic"], payload.data))
        tail.offset = result["next_offset"]
        if result["items"]:
            tail.wake()
        return True
