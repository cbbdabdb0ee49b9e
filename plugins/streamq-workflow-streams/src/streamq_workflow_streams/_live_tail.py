"""Follows streams with one long poll each, shared by all readers of this process.

Design: docs/design/workflow-streams.md.
"""

from __future__ import annotations

import asyncio
import base64
import json

from temporalio.api.common.v1 import Payload

from streamq.driver import (
    BackendError,
    Stored,
    StreamId,
    StreamNotFoundError,
    StreamqError,
    Tap,
    decode_position,
)

from ._errors import BACKEND, HostBusyError
from ._protocol import CROWDED, DRAINING, POLL, RECORD_OVERHEAD_BYTES, TRUNCATED, Key, json_payload
from .requests._hosts import HostRequests

_KEPT_BYTES = 262_144
_IDLE_SECONDS = 60.0
_ROLLOVER_SECONDS = 0.02

HostTap = Tap[Key, Stored]


class LiveTail:
    """The streams that a queue follows, each until no reader has used it for a minute.

    Args:
        requests: The requests to hosts.
        busy_seconds: How long readers query a host that takes no more long polls, before the next
            attempt to follow it.
    """

    def __init__(self, requests: HostRequests, busy_seconds: float) -> None:
        self._requests = requests
        self._busy_seconds = busy_seconds
        self._followed: dict[StreamId, tuple[HostTap, asyncio.Task[None]]] = {}
        self._now = asyncio.get_running_loop().time

    def tap(self, stream: StreamId, place: Key) -> HostTap | None:
        """Return the tap of a stream, if a reader at this place can wait there."""
        found = self._find(stream)
        return found if found is not None and found.is_at_end(place) else None

    def _find(self, stream: StreamId) -> HostTap | None:
        found = self._followed.get(stream)
        return None if found is None else found[0]

    def follow(self, stream: StreamId, floor: Key, offset: int) -> HostTap:
        """Follow a stream.

        Args:
            stream: The stream.
            floor: Key of the last record that the caller has, or an older one without successors
                up to the offset.
            offset: The host's offset of the next record.
        """
        tap = self.tap(stream, floor)
        if tap is not None:
            return tap
        self.drop(stream)
        tap = HostTap(
            floor,
            max_bytes=_KEPT_BYTES,
            overhead_bytes=RECORD_OVERHEAD_BYTES,
            now=self._now(),
        )
        task = asyncio.get_running_loop().create_task(
            self._follow(stream, tap, offset), name=f"streamq-tail {stream}"
        )
        self._followed[stream] = (tap, task)
        return tap

    def drop(self, stream: StreamId) -> None:
        """Stop following a stream; its readers query the host."""
        found = self._followed.pop(stream, None)
        if found is not None:
            tap, task = found
            task.cancel()
            tap.retire()

    def close(self, error: StreamqError) -> list[asyncio.Task[None]]:
        """Raise an error to all readers that wait; return the tasks that are ending."""
        ending = list(self._followed.values())
        self._followed.clear()
        for tap, task in ending:
            task.cancel()
            tap.retire(error)
        return [task for _, task in ending]

    async def _follow(self, stream: StreamId, tap: HostTap, offset: int) -> None:
        error: StreamqError | None = None
        following: int | None = offset
        try:
            while following is not None and not tap.is_idle(self._now(), _IDLE_SECONDS):
                following = await self._poll(stream, tap, following)
        except HostBusyError:
            # Until then the readers of this tap wait, and then query the host.
            await asyncio.sleep(self._busy_seconds)
        except StreamNotFoundError:
            pass  # the readers find this out by their own queries
        except StreamqError as exc:
            error = exc
        if self._find(stream) is tap:
            del self._followed[stream]
        tap.retire(error)

    async def _poll(self, stream: StreamId, tap: HostTap, offset: int) -> int | None:
        """Wait for new records once; return the next offset, or ``None`` if it cannot go on."""
        request = json_payload({"topics": [], "from_offset": offset})
        outcome = await self._requests.long_poll(stream, POLL, request)
        if outcome.HasField("failure"):
            kind = outcome.failure.application_failure_info.type
            if kind == DRAINING:
                await asyncio.sleep(_ROLLOVER_SECONDS)
                return offset
            if kind == TRUNCATED or not kind:
                return None
            if kind == CROWDED:
                raise HostBusyError(
                    f"the host takes no more long polls: {outcome.failure.message}",
                    backend=BACKEND,
                    stream=str(stream),
                )
            raise BackendError(
                f"the host workflow refused to be followed: {outcome.failure.message}",
                backend=BACKEND,
                stream=str(stream),
            )
        result = json.loads(outcome.success.payloads[0].data)
        for item in result["items"]:
            payload = Payload.FromString(base64.b64decode(item["data"]))
            key = decode_position(item["topic"], backend=BACKEND, stream=stream)
            tap.push(key, Stored(item["topic"], payload.data))
        if result["items"]:
            tap.wake()
        following: int = result["next_offset"]
        return following
