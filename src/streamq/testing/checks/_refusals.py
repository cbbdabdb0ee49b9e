"""Checks of error translation: failures become streamq's errors, which contain no secret."""

from __future__ import annotations

import asyncio
import traceback

import pytest

from streamq.driver import (
    AccessDeniedError,
    BackendUnavailableError,
    ChunkQueue,
    CursorError,
    DriverSettings,
    StorageFullError,
    StreamId,
)
from streamq.testing._harness import BackendHarness, OpenQueue, OpenWith

from ._base import Checks
from ._conditions import needs
from ._records import data_of, entries

_NO_POSITIONS = ("x", "-", "1", "a-b", "1-2-3", "-1-0", "1.5-0", "é", "\0", "9" * 50, "x" * 5_000)


class RefusalChecks(Checks):
    """Failures become streamq's errors, which contain no secret."""

    group = "errors"

    async def test_invalid_position_is_refused(self, queue: ChunkQueue, stream: StreamId) -> None:
        """Cursors come back from browsers; a damaged one is an error of the client, no outage."""
        await queue.append(stream, entries(b"a"))
        known = {record.position for record in await self.read(queue, stream)}
        refusals: list[CursorError] = []
        for position in _NO_POSITIONS:
            if position in known:
                continue
            try:
                await self.read(queue, stream, position, max_wait=0)
            except CursorError as exc:
                refusals.append(exc)
        assert refusals, "no invalid position is refused"
        assert {refusal.backend for refusal in refusals} == {queue.backend}
        assert not queue.capabilities.replay or data_of(await self.read(queue, stream)) == [b"a"]

    @needs("unreachable")
    async def test_unreachable_server_is_reported_at_open(
        self, backend: BackendHarness, open_with: OpenWith
    ) -> None:
        """A wrong address is the most common first mistake; it has to be reported soon."""
        async with asyncio.timeout(backend.answer_seconds):
            with pytest.raises(BackendUnavailableError) as caught:
                await open_with(backend.unreachable())
        assert caught.value.backend == backend.driver.name

    @needs("wrong_credentials")
    async def test_refused_credentials_are_reported_without_the_secret(
        self, backend: BackendHarness, open_with: OpenWith
    ) -> None:
        """Errors are copied into logs, workflow histories and screenshots."""
        settings, secret = backend.wrong_credentials()
        async with asyncio.timeout(backend.answer_seconds):
            with pytest.raises(AccessDeniedError) as caught:
                await open_with(settings)
        error: BaseException | None = caught.value
        assert caught.value.backend == backend.driver.name
        while error is not None:
            assert secret not in f"{error} {error!r} {vars(error)}", "the secret is in the error"
            error = error.__cause__ or error.__context__
        shown = "".join(traceback.format_exception(caught.value))
        assert secret not in shown, "the secret is in the traceback"
        assert secret not in f"{settings} {settings!r}", "the secret is in the settings' text"

    @needs("read_only")
    async def test_read_only_backend_is_reported(
        self,
        queue: ChunkQueue,
        stream: StreamId,
        backend: BackendHarness,
        open_with: OpenWith,
    ) -> None:
        """Replicas and missing permissions have to be reported as such; reading may continue."""

        async def open_and_append(settings: DriverSettings) -> None:
            await (await open_with(settings)).append(stream, entries(b"b", first=1))

        await queue.append(stream, entries(b"a"))
        async with backend.read_only() as settings:
            with pytest.raises((AccessDeniedError, BackendUnavailableError)) as caught:
                await open_and_append(settings)
            assert caught.value.backend == backend.driver.name
        assert data_of((await queue.describe(stream, last=2)).last) == [b"a"]

    @needs("full")
    async def test_full_backend_is_reported_keeps_its_records_and_recovers(
        self,
        queue: ChunkQueue,
        stream: StreamId,
        backend: BackendHarness,
        open_with: OpenWith,
        open_queue: OpenQueue,
    ) -> None:
        """An operator has to fix a full disk; then the stream continues where it stopped."""
        await queue.append(stream, entries(b"a"))
        size = min(2**20, queue.capabilities.max_record_bytes)
        large = [bytes(size)] * (2**20 // size)
        async with backend.full() as settings:
            full = await open_with(settings)
            with pytest.raises(StorageFullError) as caught:
                await full.append(stream, entries(*large, first=1))
            assert (caught.value.backend, caught.value.stream) == (queue.backend, str(stream))
            *prefix, oldest = data_of((await full.describe(stream, last=len(large) + 1)).last)
            assert (oldest, prefix) == (b"a", large[: len(prefix)])
            assert len(prefix) < len(large)
        again = await open_queue()
        await again.append(stream, entries(*large, first=1))
        newest = (await again.describe(stream, last=len(large))).last
        assert [len(record.data) for record in newest] == [size] * len(large)
