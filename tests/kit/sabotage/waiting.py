"""Sabotaged drivers that wait too long, too short, or for the wrong event."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from streamq.driver import BackendUnavailableError, Stored, StreamId, StreamNotFoundError

from .reading import _Reading
from .server import SoundQueue, checks


class TakesItsTailForTheEnd(SoundQueue):
    """Reads nothing where a read has just been woken by the first of many records."""

    caught_by = checks("read_at_once_goes_beyond_what_woke_the_read_before")

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._tail: tuple[StreamId, str, float] | None = None
        self._now = asyncio.get_running_loop().time

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        if max_wait <= 0 and self._tail == (stream, after, self._now()):
            return []
        bounds = {"max_records": max_records, "max_bytes": max_bytes}
        found = await super().read(stream, after, **bounds, max_wait=0)
        if not found and max_wait > 0:
            found = (await super().read(stream, after, **bounds, max_wait=max_wait))[:16]
            if found:
                self._tail = stream, found[-1].position, self._now()
        return found


class NeverWaits(_Reading):
    """Returns at once, even without records."""

    caught_by = checks("""
        aclose_ends_blocked_reads_at_once aclose_releases_everything_wherever_it_is_cancelled
        append_is_not_missed_wherever_a_read_is append_to_another_stream_does_not_end_the_wait
        append_wakes_a_blocked_read append_wakes_a_read_in_another_connection
        append_wakes_every_read_that_waits_for_the_stream
        blocked_readers_get_a_record_that_is_stored_late
        blocked_reads_end_with_the_queue_and_not_later
        bounds_of_a_read_hold_to_the_record_and_to_the_byte closing_one_queue_leaves_others_alone
        every_call_to_a_server_that_hangs_ends_in_time
        expired_stream_begins_anew_for_connections_that_know_it foreign_entry_harms_no_stream
        latency_is_of_the_declared_class many_streams_are_read_at_once nothing_is_left_after_aclose
        open_queues_heal_after_a_restart opening_leaves_nothing_if_it_is_cancelled_again_and_again
        read_that_is_blocked_when_its_connection_drops_fails_or_continues
        reader_may_come_before_the_stream subscribers_that_come_and_go_leave_nothing
        ten_readers_each_see_everything wait_is_bounded waits_are_exact
        what_another_connection_has_deleted_is_gone_for_every_call
    """)

    def before(self, bounds: dict[str, float]) -> None:
        bounds["max_wait"] = 0


class WaitsTooLong(_Reading):
    """Waits for a time of its own instead of the requested one."""

    caught_by = checks("""
        every_call_to_a_server_that_hangs_ends_in_time wait_is_bounded waits_are_exact
    """)

    def before(self, bounds: dict[str, float]) -> None:
        bounds["max_wait"] += 3


class _LookingAgain(SoundQueue):
    """Polls instead of being woken."""

    interval = 1_000.0

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        while True:
            found = await super().read(
                stream, after, max_records=max_records, max_bytes=max_bytes, max_wait=0
            )
            if found or max_wait <= 0:
                return found
            pause = min(self.interval, max_wait)
            await self.pause(pause)
            max_wait -= pause

    async def pause(self, seconds: float) -> None:
        """Wait, but not longer than the queue is open."""
        until = asyncio.get_running_loop().time() + seconds
        while (left := until - asyncio.get_running_loop().time()) > 0:
            self.check_open()
            await asyncio.sleep(min(left, 0.01))


class NeverWakesUp(_LookingAgain):
    """Checks again only when the wait has ended."""

    caught_by = checks("""
        append_is_not_missed_wherever_a_read_is append_wakes_a_blocked_read
        append_wakes_a_read_in_another_connection append_wakes_every_read_that_waits_for_the_stream
        blocked_readers_get_a_record_that_is_stored_late
        expired_stream_begins_anew_for_connections_that_know_it latency_is_of_the_declared_class
        many_streams_are_read_at_once
        read_that_is_blocked_when_its_connection_drops_fails_or_continues
        reader_may_come_before_the_stream ten_readers_each_see_everything
        what_another_connection_has_deleted_is_gone_for_every_call
    """)


class PollsInSecret(_LookingAgain):
    """Polls four times a second, and declares milliseconds."""

    caught_by = checks("latency_is_of_the_declared_class waits_are_exact")

    interval = 0.25


class WakesForEveryStream(SoundQueue):
    """Ends every wait without records when any stream gets an append."""

    caught_by = checks("""
        append_to_another_stream_does_not_end_the_wait many_streams_are_read_at_once
        waits_are_exact
    """)

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        before = set(self.server.disk.names())
        while True:
            found = await super().read(
                stream,
                after,
                max_records=max_records,
                max_bytes=max_bytes,
                max_wait=min(max_wait, 0.01),
            )
            max_wait -= 0.01
            if found or max_wait <= 0 or set(self.server.disk.names()) != before:
                return found


class WantsStreamBeforeReader(SoundQueue):
    """Knows nothing of a stream that does not exist yet."""

    caught_by = checks("""
        aclose_ends_blocked_reads_at_once aclose_releases_everything_wherever_it_is_cancelled
        append_is_not_missed_wherever_a_read_is append_to_another_stream_does_not_end_the_wait
        attempt_that_keeps_writing_during_the_takeover_is_not_blended_in
        blocked_reads_end_with_the_queue_and_not_later
        chunk_larger_than_a_record_is_split_and_joined closing_one_queue_leaves_others_alone
        every_ending_ends_live_and_late_readers
        expired_stream_begins_anew_for_connections_that_know_it
        expired_stream_is_gone_by_every_path joining_a_live_stream_at_any_moment_gives_all_of_it
        latency_is_of_the_declared_class many_streams_are_read_at_once
        nothing_is_left_after_aclose offsets_are_dense_and_equal_through_many_takeovers
        open_queues_heal_after_a_restart opening_leaves_nothing_if_it_is_cancelled_again_and_again
        reader_may_come_before_the_stream reader_misses_nothing_when_every_other_read
        slow_backend_is_neither_an_error_nor_a_cause_of_disorder
        stream_goes_on_after_the_server_hung stream_is_delivered_once_through_dropped_connections
        stream_is_delivered_once_when_every_other_append stream_without_chunks_ends_as_well
        subscribers_that_come_and_go_leave_nothing ten_live_readers_each_get_everything
        ten_readers_each_see_everything wait_is_bounded waits_are_exact
        what_another_connection_has_deleted_is_gone_for_every_call
    """)

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        self.check_open(stream)
        if max_wait and self.server.stored(stream) is None:
            raise StreamNotFoundError("no stream", backend=self.backend, stream=str(stream))
        return await super().read(
            stream, after, max_records=max_records, max_bytes=max_bytes, max_wait=max_wait
        )


class HasConnectionForEachReader(SoundQueue):
    """Needs a connection for each blocked read, and has a hundred."""

    caught_by = checks("many_streams_are_read_at_once")

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._free = 100

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        if not self._free:
            raise BackendUnavailableError(
                "too many connections", backend=self.backend, stream=str(stream)
            )
        self._free -= 1
        try:
            return await super().read(
                stream, after, max_records=max_records, max_bytes=max_bytes, max_wait=max_wait
            )
        finally:
            self._free += 1


class LosesCancelledRead(_Reading):
    """Removes records before it returns them, so that a cancelled read loses them."""

    caught_by = checks("read_can_be_cancelled_at_any_await reader_can_be_cancelled_at_any_await")

    async def after(
        self, stream: StreamId, found: list[Stored], bounds: dict[str, float]
    ) -> Sequence[Stored]:
        try:
            await self.server.answer()
        except asyncio.CancelledError:
            self.server.forget(stream, slice(0, len(found)))
            raise
        return found
