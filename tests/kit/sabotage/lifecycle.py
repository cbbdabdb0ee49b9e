"""Sabotaged drivers that close wrongly, are cancelled wrongly, or leave something behind."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Sequence
from datetime import timedelta
from typing import Self

from streamq.driver import (
    BackendUnavailableError,
    ChunkQueue,
    ClosedError,
    Entry,
    Home,
    QueueOptions,
    Stored,
    StreamId,
    StreamInfo,
)

from .server import ROUND_TRIP_SECONDS, SabotagedSettings, SoundQueue, checks


class SwallowsCancellation(SoundQueue):
    """Ignores the cancellation of an append."""

    caught_by = checks("""
        aclose_can_be_cancelled_at_any_await_and_finished_later
        append_can_be_cancelled_at_any_await opening_a_writer_can_be_cancelled_at_any_await
    """)

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        try:
            await super().append(stream, entries, ttl=ttl)
        except asyncio.CancelledError:
            await super().append(stream, entries, ttl=ttl)


class HangsOnCloseWhileReading(SoundQueue):
    """Closes only after all reads have ended, however long that takes."""

    caught_by = checks("""
        aclose_ends_blocked_reads_at_once blocked_reads_end_with_the_queue_and_not_later
    """)

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._idle = asyncio.Condition()
        self._reads = 0

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        self._reads += 1
        try:
            return await super().read(
                stream, after, max_records=max_records, max_bytes=max_bytes, max_wait=max_wait
            )
        finally:
            self._reads -= 1

    async def aclose(self) -> None:
        while self._reads:  # noqa: ASYNC110 - one way of hanging
            await asyncio.sleep(0.01)
        await super().aclose()


class LeavesBlockedReadsHanging(SoundQueue):
    """Closes, and leaves waiting reads to their own deadline."""

    caught_by = checks("""
        aclose_ends_blocked_reads_at_once blocked_reads_end_with_the_queue_and_not_later
    """)

    async def aclose(self) -> None:
        self.is_closed = True


class ClosesOtherQueues(SoundQueue):
    """Closes resources that all queues of the process share."""

    caught_by = checks("""
        aclose_can_be_cancelled_at_any_await_and_finished_later
        aclose_ends_appends_that_are_under_way aclose_releases_everything_wherever_it_is_cancelled
        closing_one_queue_leaves_others_alone nothing_is_left_after_aclose
        records_outlive_the_connections subscribers_that_come_and_go_leave_nothing
    """)

    async def aclose(self) -> None:
        await super().aclose()
        await self.server.break_connections()
        self.server.notes["closed"] = True

    def check_open(self, stream: StreamId | None = None) -> None:
        super().check_open(stream)
        if "closed" in self.server.notes:
            raise ClosedError("already closed", backend=self.backend, stream=str(stream))


class RefusesSecondClose(SoundQueue):
    """Raises when it is closed twice."""

    caught_by = checks("""
        aclose_can_be_cancelled_at_any_await_and_finished_later
        aclose_ends_appends_that_are_under_way aclose_ends_blocked_reads_at_once
        aclose_is_idempotent blocked_reads_end_with_the_queue_and_not_later
        closed_queue_refuses_everything closing_one_queue_leaves_others_alone
        optional_calls_of_a_closed_queue_are_refused records_outlive_the_connections
    """)

    async def aclose(self) -> None:
        self.check_open()
        await super().aclose()


class WorksAfterClose(SoundQueue):
    """Reconnects when it is used after it was closed."""

    caught_by = checks("""
        aclose_ends_appends_that_are_under_way aclose_ends_blocked_reads_at_once
        blocked_reads_end_with_the_queue_and_not_later closed_queue_refuses_everything
        optional_calls_of_a_closed_queue_are_refused
    """)

    def check_open(self, stream: StreamId | None = None) -> None:
        self.is_closed = False


class AcknowledgesWhatCloseCutOff(SoundQueue):
    """Acknowledges an append that was in progress when the queue was closed."""

    caught_by = checks("aclose_ends_appends_that_are_under_way")

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        self.check_open(stream)
        try:
            await super().append(stream, entries, ttl=ttl)
        except ClosedError:
            return


class NeverFinishesCancelledClose(SoundQueue):
    """Waits for the first close to end, even if that was cancelled."""

    caught_by = checks("""
        aclose_can_be_cancelled_at_any_await_and_finished_later
        aclose_ends_appends_that_are_under_way
    """)

    _closed: asyncio.Event | None = None

    async def aclose(self) -> None:
        if self._closed is not None:
            await self._closed.wait()
            return
        self._closed = asyncio.Event()
        await asyncio.sleep(ROUND_TRIP_SECONDS)
        await super().aclose()
        self._closed.set()


class ReleasesNothingIfCancelled(SoundQueue):
    """Takes leave of its server before it releases anything, and is cancelled meanwhile."""

    caught_by = checks("""
        aclose_ends_appends_that_are_under_way
        aclose_releases_everything_wherever_it_is_cancelled opening_can_be_cancelled_at_any_await
        opening_leaves_nothing_if_it_is_cancelled_again_and_again
        subscribers_that_come_and_go_leave_nothing
    """)

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._beat = asyncio.ensure_future(asyncio.Event().wait())

    async def aclose(self) -> None:
        await asyncio.sleep(ROUND_TRIP_SECONDS)
        self._beat.cancel()
        await super().aclose()


class LeavesTaskOfCancelledOpen(SoundQueue):
    """Cleans up after an open that fails, and not after one that is cancelled."""

    caught_by = checks("""
        opening_can_be_cancelled_at_any_await
        opening_leaves_nothing_if_it_is_cancelled_again_and_again
        subscribers_that_come_and_go_leave_nothing
    """)

    @classmethod
    async def connect(cls, options: QueueOptions, settings: SabotagedSettings) -> Self:
        beat = asyncio.ensure_future(asyncio.Event().wait())
        opened = await super().connect(options, settings)
        beat.cancel()
        await asyncio.wait({beat})
        return opened


class LeaksTask(SoundQueue):
    """Leaves a task behind when it is closed."""

    caught_by = checks("""
        aclose_releases_everything_wherever_it_is_cancelled nothing_is_left_after_aclose
        opening_can_be_cancelled_at_any_await
        opening_leaves_nothing_if_it_is_cancelled_again_and_again
        subscribers_that_come_and_go_leave_nothing
    """)

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._beat = asyncio.ensure_future(asyncio.Event().wait())


class LeaksFile(SoundQueue):
    """Leaves a file open when it is closed; the end of the server closes it."""

    caught_by = checks("""
        aclose_releases_everything_wherever_it_is_cancelled nothing_is_left_after_aclose
        opening_leaves_nothing_if_it_is_cancelled_again_and_again
        subscribers_that_come_and_go_leave_nothing
    """)

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        weakref.finalize(self.server, os.close, os.open(os.devnull, os.O_RDONLY))


class LeaksThread(SoundQueue):
    """Leaves a thread behind when it is closed."""

    caught_by = checks("""
        aclose_releases_everything_wherever_it_is_cancelled nothing_is_left_after_aclose
        opening_can_be_cancelled_at_any_await
        opening_leaves_nothing_if_it_is_cancelled_again_and_again
        subscribers_that_come_and_go_leave_nothing
        threads_end_when_a_queue_is_closed_whose_loop_has_ended
    """)

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        end = threading.Event()
        thread = threading.Thread(target=end.wait, daemon=True)
        thread.start()
        weakref.finalize(self.server, self._stop, thread, end)

    def abandon(self) -> None:
        """Leave the thread to itself."""

    @staticmethod
    def _stop(thread: threading.Thread, end: threading.Event) -> None:
        end.set()
        thread.join()  # Otherwise the next check might count it.


class BreaksWhenCancelled(SoundQueue):
    """Cannot be used after a description was cancelled."""

    caught_by = checks("""
        describing_deleting_and_listing_can_be_cancelled_at_any_await
        opening_a_writer_can_be_cancelled_at_any_await
    """)

    _is_broken = False

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        try:
            return await super().describe(stream, last=last)
        except asyncio.CancelledError:
            self._is_broken = True
            raise

    async def link(self) -> ChunkQueue:
        if self._is_broken and not self.is_closed:
            raise BackendUnavailableError("out of step", backend=self.backend)
        return await super().link()


class _Anywhere(Home):
    """The home of a queue that takes every event loop for its own."""

    def check(self) -> None:
        """Refuse nothing."""


class WorksInEveryLoop(SoundQueue):
    """Has made its home itself, and looks at no event loop."""

    caught_by = checks("another_event_loop_is_refused_at_once")

    def __new__(cls, *args: object, **options: object) -> Self:
        queue = super().__new__(cls, *args, **options)
        queue.home = _Anywhere("queue")
        return queue


class SweepsNothingOnceClosed(SoundQueue):
    """Reports of a sweep that could not take place that nothing was to be removed."""

    caught_by = checks("optional_calls_of_a_closed_queue_are_refused")

    async def sweep(self) -> int:
        return 0 if self.is_closed else await super().sweep()
