"""The queue: streamq's contract on host workflows."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.api.update.v1 import Outcome
from temporalio.client import Client

from streamq.driver import (
    BEFORE_ALL,
    BackendError,
    Capabilities,
    ChunkQueue,
    Entry,
    FencedError,
    QueueOptions,
    StorageFullError,
    Stored,
    StreamId,
    StreamInfo,
    StreamNotFoundError,
    decode_position,
    encode_position,
)

from ._errors import BACKEND, HostBusyError, closed_error
from ._frames import pack, unpack
from ._frontend import BUSY_SECONDS, Frontend, binary
from ._host import APPEND, DESCRIBE, FENCED, FULL, READ
from ._settings import WorkflowStreamsSettings
from ._tails import Tails

_REMEMBERED = 4_096
_LOOKS_PER_SECOND = 50
_LETTING_GO_SECONDS = 0.02
_REQUEST_BYTES = 1_572_864  # Temporal takes 2 MiB in one update

Key = tuple[int, int]


class WorkflowStreamsQueue(ChunkQueue):
    """Streams on one Temporal namespace, each in a host workflow of its own."""

    backend = BACKEND

    def __init__(
        self,
        options: QueueOptions,
        settings: WorkflowStreamsSettings,
        capabilities: Capabilities,
        client: Client,
    ) -> None:
        self.capabilities = capabilities
        self._ttl = options.ttl
        self._settings = settings
        self.frontend = Frontend(client, settings)
        self._tails = Tails(self.frontend, settings.absent_poll_seconds)
        self._hosted: OrderedDict[StreamId, None] = OrderedDict()
        self._looking = 0
        self._loop = asyncio.get_running_loop()

    # -- the contract: docstrings are inherited ------------------------------------------------

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        self.frontend.check_open()
        for batch in self._batches(stream, entries):
            await self._append(stream, batch, ttl or self._ttl)

    async def read(
        self,
        stream: StreamId,
        after: str,
        *,
        max_records: int,
        max_bytes: int,
        max_wait: float,
    ) -> Sequence[Stored]:
        self.frontend.check_open()
        start = decode_position(after, backend=BACKEND, stream=stream)
        until = self._loop.time() + max_wait
        # From the beginning only the host knows: a tail may remember a stream that another process
        # has deleted.
        tail = self._tails.find(stream) if max_wait > 0 and start != BEFORE_ALL else None
        while True:
            if tail is None or not tail.covers(start):
                found = await self._fetch(stream, start, max_records, max_bytes)
                left = until - self._loop.time()
                if found is None:
                    if left <= 0:
                        return []
                    await self._wait_for_stream(left)
                    continue
                records, offset = found
                if records or left <= 0:
                    return records
                tail = self._tails.attach(stream, start, offset)
            records = tail.after(start, max_records, max_bytes)
            left = until - self._loop.time()
            if records or left <= 0:
                return records
            await tail.wait(left)

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        request = pack({"last": max(0, last)})
        header, records = unpack(await self.frontend.query(stream, DESCRIBE, request))
        if not header["records"]:  # its first append was refused, or is about to be handled
            raise StreamNotFoundError(
                f"there is no stream {stream} yet", backend=BACKEND, stream=str(stream)
            )
        return StreamInfo(
            stream,
            tuple(reversed(_stored(header, records))),
            header["records"],
            header["size_bytes"],
            _expires_in(header),
        )

    async def delete(self, stream: StreamId) -> None:
        with contextlib.suppress(StreamNotFoundError):
            await self.frontend.terminate(stream)
        self._hosted.pop(stream, None)
        self._tails.drop(stream)

    async def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        self.frontend.check_open()
        # What was created or ended just before the call has to be in the listing, or not.
        await self.frontend.pause(self._settings.listing_delay_seconds)
        seen: set[StreamId] = set()
        async for stream in self.frontend.list_streams(tenant):
            if stream.name.startswith(prefix) and stream not in seen:
                seen.add(stream)
                yield StreamInfo(stream)

    async def aclose(self) -> None:
        self.frontend.close()
        ending = self._tails.close(closed_error())
        if ending:
            await asyncio.wait(ending)
        await self.frontend.gone()
        # Threads of the SDK need Python once more after a call has ended, and a process that ends
        # meanwhile crashes.
        await asyncio.sleep(_LETTING_GO_SECONDS)

    # -- inside --------------------------------------------------------------------------------

    def _batches(self, stream: StreamId, entries: Sequence[Entry]) -> list[list[Entry]]:
        """Divide entries so that each part fits into one update, before any of them is sent."""
        limit = self.capabilities.max_record_bytes
        batches: list[list[Entry]] = []
        room = 0
        for entry in entries:
            size = len(entry.data)
            if size > limit:
                raise BackendError(
                    f"a record of {size} bytes is more than a workflow takes, which is {limit}",
                    backend=BACKEND,
                    stream=str(stream),
                )
            if not batches or size + 64 > room:
                batches.append([])
                room = _REQUEST_BYTES
            batches[-1].append(entry)
            room -= size + 64
        return batches

    async def _append(self, stream: StreamId, entries: list[Entry], ttl: timedelta) -> None:
        header = {
            "tenant": stream.tenant,
            "name": stream.name,
            "ttl": ttl.total_seconds(),
            "max_bytes": self._settings.max_stream_bytes,
            "keys": [(entry.epoch, entry.index) for entry in entries],
        }
        request = binary(pack(header, [entry.data for entry in entries]))
        starts = stream not in self._hosted
        until = self._loop.time() + self._settings.operation_timeout_seconds
        while True:
            try:
                outcome = await self.frontend.send_update(stream, APPEND, request, starts=starts)
                break
            except StreamNotFoundError:
                # The host has ended since, or just now: that is no failure, but a new stream.
                starts = True
            except HostBusyError:
                # It is going on in another run just now, or others use it as well.
                if self._loop.time() > until:
                    raise
                await self.frontend.pause(BUSY_SECONDS)
        self._hosted[stream] = None
        self._hosted.move_to_end(stream)
        if len(self._hosted) > _REMEMBERED:
            self._hosted.popitem(last=False)
        _raise_refusal(stream, outcome)

    async def _wait_for_stream(self, seconds: float) -> None:
        """Wait a while before looking again; the longer, the more readers of this queue do so."""
        self._looking += 1
        try:
            interval = max(self._settings.absent_poll_seconds, self._looking / _LOOKS_PER_SECOND)
            await self.frontend.pause(min(seconds, interval))
        finally:
            self._looking -= 1

    async def _fetch(
        self, stream: StreamId, start: Key, max_records: int, max_bytes: int
    ) -> tuple[list[Stored], int] | None:
        """Ask the host for records, and where they end; ``None`` if there is no stream."""
        request = pack({"after": start, "max_records": max_records, "max_bytes": max_bytes})
        try:
            answer = await self.frontend.query(stream, READ, request)
        except StreamNotFoundError:
            return None
        header, records = unpack(answer)
        return _stored(header, records), header["next"]


def _stored(header: dict[str, Any], records: list[bytes]) -> list[Stored]:
    return [
        Stored(encode_position((epoch, index)), data)
        for (epoch, index), data in zip(header["keys"], records, strict=True)
    ]


def _expires_in(header: dict[str, Any]) -> timedelta:
    # Told, and not decided by: a stream has expired when its host has ended, by Temporal's clock.
    return max(timedelta(), datetime.fromisoformat(header["expires_at"]) - datetime.now(UTC))


def _raise_refusal(stream: StreamId, outcome: Outcome) -> None:
    if not outcome.HasField("failure"):
        return
    message = outcome.failure.message
    kind = outcome.failure.application_failure_info.type
    if kind == FENCED:
        raise FencedError(message, backend=BACKEND, stream=str(stream))
    if kind == FULL:
        raise StorageFullError(
            f"{message}; delete the stream, send less, or take another backend",
            backend=BACKEND,
            stream=str(stream),
        )
    raise BackendError(
        f"the host workflow refused the append: {message}", backend=BACKEND, stream=str(stream)
    )
