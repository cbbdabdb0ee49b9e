"""Checks of error translation: failures become streamq's errors, which contain no secret."""

from __future__ import annotations

import traceback

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
from ._deadlines import within
from ._promises import promises
from ._records import data_of, entries
from ._verdicts import holds, refuses, same, same_records

_NO_POSITIONS = ("x", "-", "1", "a-b", "1-2-3", "-1-0", "1.5-0", "é", "\0", "9" * 50, "x" * 5_000)


_UNNAMED = "the error is raised without backend=self.backend, stream=str(stream)"
_SECRET = (
    "the settings' field is no SecretStr, or the error quotes the address or the client's message: "
    "mask_credentials() of streamq.driver takes secrets out; raise ... from None if a cause has one"
)


class RefusalChecks(Checks):
    """Failures become streamq's errors, which contain no secret."""

    group = "errors"

    @promises(
        "ChunkQueue.read",
        "``after`` is not a position that this driver could have returned.",
    )
    async def test_invalid_position_is_refused(self, queue: ChunkQueue, stream: StreamId) -> None:
        """Cursors come back from browsers; a damaged one is an error of the client, no outage."""
        await queue.append(stream, entries(b"a"))
        known = {record.position for record in await self.read(queue, stream)}
        refusals: list[CursorError] = []
        for position in _NO_POSITIONS:
            if position in known:
                continue
            try:
                async with within(self.patience, "a read after a text that is no position"):
                    # By itself: without replay, the helper acknowledges the position before.
                    await queue.read(stream, position, max_records=9, max_bytes=1_000, max_wait=0)
            except CursorError as exc:
                refusals.append(exc)
        holds(
            refusals,
            f"reads after {len(_NO_POSITIONS)} texts that are no positions",
            expected="CursorError for those that this driver could not have returned",
            seen="none was refused",
            cause="the position is passed to the backend as it is: decode_position() of "
            "streamq.driver refuses what encode_position() has not made",
        )
        named = {refusal.backend for refusal in refusals}
        same(named, {queue.backend}, "the backend in the errors", cause=_UNNAMED)
        if queue.capabilities.replay:
            found = data_of(await self.read(queue, stream))
            same_records(found, [b"a"], "the records after reads that were refused")

    @promises(
        "Driver.open",
        "Connect, and prove that the backend answers.",
    )
    @promises(
        "Driver.open",
        "It cannot be reached",
    )
    @needs("unreachable")
    async def test_unreachable_server_is_reported_at_open(
        self, backend: BackendHarness, open_with: OpenWith
    ) -> None:
        """A wrong address is the most common first mistake; it has to be reported soon."""
        what = "opening with an address at which no server listens"
        cause = (
            "the client connects with the first call, not at open; or its own error comes through"
        )
        async with within(backend.answer_seconds, what):
            with refuses(BackendUnavailableError, what, cause=cause) as caught:
                await open_with(backend.unreachable())
        same(caught.value.backend, backend.driver.name, "the backend in the error", cause=_UNNAMED)

    @promises(
        "Driver.open",
        "It refuses our credentials.",
    )
    @promises(
        "ChunkQueue",
        "No error shows a secret, neither in its text nor in that of its causes.",
    )
    @needs("wrong_credentials")
    async def test_refused_credentials_are_reported_without_the_secret(
        self, backend: BackendHarness, open_with: OpenWith
    ) -> None:
        """Errors are copied into logs, workflow histories and screenshots."""
        settings, secret = backend.wrong_credentials()
        what = "opening with credentials that the backend refuses"
        cause = "the client's error for a refused login is mapped to another one, or not at all"
        async with within(backend.answer_seconds, what):
            with refuses(AccessDeniedError, what, cause=cause) as caught:
                await open_with(settings)
        same(caught.value.backend, backend.driver.name, "the backend in the error", cause=_UNNAMED)
        texts = {"the settings' text": f"{settings} {settings!r}"}
        error: BaseException | None = caught.value
        while error is not None:
            texts[f"the {type(error).__name__}"] = f"{error} {error!r} {vars(error)}"
            error = error.__cause__ or error.__context__
        texts["the traceback"] = "".join(traceback.format_exception(caught.value))
        places = [place for place, text in texts.items() if secret in text]
        same(places, [], "the places where the secret is shown", cause=_SECRET)

    @promises(
        "ChunkQueue",
        ":class:`~streamq.AccessDeniedError` for credentials and permissions",
        cause="the refusal to write is mapped to BackendError: it is AccessDeniedError if a "
        "permission is missing, BackendUnavailableError if another server can be written to",
    )
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

        async def open_and_delete(settings: DriverSettings) -> None:
            await (await open_with(settings)).delete(stream)

        await queue.append(stream, entries(b"a"))
        async with backend.read_only() as settings:
            for verb, call in {"appending": open_and_append, "deleting": open_and_delete}.items():
                what = f"opening a backend that cannot be written to, and {verb}"
                with refuses((AccessDeniedError, BackendUnavailableError), what) as caught:
                    await call(settings)
                name = backend.driver.name
                same(caught.value.backend, name, "the backend in the error", cause=_UNNAMED)
        newest = data_of((await queue.describe(stream, last=2)).last)
        same_records(newest, [b"a"], "describe(last=2) after calls that were refused")

    @promises(
        "ChunkQueue",
        ":class:`~streamq.StorageFullError` when it has no room",
    )
    @promises(
        "ChunkQueue.append",
        "There is no room. A prefix may be stored; what was stored before can be read, and "
        "appending works again once there is room.",
    )
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
            what = f"an append of {len(large)} entries of {size:,} bytes to a full backend"
            cause = "the error of the backend for no room is mapped to another one, or not at all"
            with refuses(StorageFullError, what, cause=cause) as caught:
                await full.append(stream, entries(*large, first=1))
            named = (caught.value.backend, caught.value.stream)
            what = "backend and stream of the error"
            same(named, (queue.backend, str(stream)), what, cause=_UNNAMED)
            *prefix, oldest = data_of((await full.describe(stream, last=len(large) + 1)).last)
            holds(
                oldest == b"a" and prefix == large[: len(prefix)] and len(prefix) < len(large),
                "the records of a stream whose backend is full",
                expected="what was there, b'a', and a prefix of the append that was refused",
                seen=[oldest, *prefix[::-1]],
                cause="the append evicts older records, or stores a part of an entry",
            )
        again = await open_queue()
        await again.append(stream, entries(*large, first=1))
        newest = (await again.describe(stream, last=len(large))).last
        same(
            [len(record.data) for record in newest],
            [size] * len(large),
            "the sizes of the newest records, once there is room again",
            cause="what a refused append had stored, or counted, is taken for stored",
        )
