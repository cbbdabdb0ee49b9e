"""Sabotaged drivers that return wrong, missing or additional records."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence

from streamq.driver import (
    START,
    CursorError,
    Stored,
    StreamId,
    decode_position,
)

from .server import SoundQueue, checks


class _Reading(SoundQueue):
    """Reads with changed bounds, or returns changed records."""

    def before(self, bounds: dict[str, float]) -> None:
        """Change the bounds."""

    async def after(
        self, stream: StreamId, found: list[Stored], bounds: dict[str, float]
    ) -> Sequence[Stored]:
        """Change the records."""
        return found

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        given = {"max_records": max_records, "max_bytes": max_bytes, "max_wait": max_wait}
        bounds = dict(given)
        self.before(bounds)
        found = await super().read(
            stream,
            after,
            max_records=int(bounds["max_records"]),
            max_bytes=int(bounds["max_bytes"]),
            max_wait=bounds["max_wait"],
        )
        return await self.after(stream, list(found), given)


class IgnoresMaxRecords(_Reading):
    """Ignores the bound on records."""

    caught_by = checks("""
        append_after_another_connection_has_begun_anew_goes_on_there
        append_after_another_connection_has_deleted_begins_anew
        appends_of_two_connections_are_one_sequence
        bounds_of_a_read_hold_to_the_record_and_to_the_byte max_records_is_obeyed
        read_returns_more_than_a_page_of_the_server
        reads_of_one_connection_do_not_disturb_each_other
        trimmed_records_are_gone_for_connections_that_have_read_them
        what_another_connection_has_deleted_is_gone_for_every_call
    """)

    def before(self, bounds: dict[str, float]) -> None:
        bounds["max_records"] = 10_000


class IgnoresMaxBytes(_Reading):
    """Ignores the bound on bytes."""

    caught_by = checks("""
        bounds_of_a_read_hold_to_the_record_and_to_the_byte max_bytes_is_obeyed
        one_record_is_returned_whatever_its_size read_returns_more_bytes_than_a_page_of_the_server
        read_returns_more_than_a_page_of_the_server
    """)

    def before(self, bounds: dict[str, float]) -> None:
        bounds["max_bytes"] = 2**30


class ReturnsNothingLargerThanMaxBytes(_Reading):
    """Stops before a record that is larger than the caller's bound, for ever."""

    caught_by = checks("""
        one_record_is_returned_whatever_its_size read_returns_more_bytes_than_a_page_of_the_server
    """)

    async def after(
        self, stream: StreamId, found: list[Stored], bounds: dict[str, float]
    ) -> Sequence[Stored]:
        return [record for record in found if len(record.data) <= bounds["max_bytes"]]


class SkipsOneAfterFullBatch(_Reading):
    """Fetches one record more than it returns, and continues after that one."""

    caught_by = checks("max_records_is_obeyed")

    def before(self, bounds: dict[str, float]) -> None:
        bounds["max_records"] += 1

    async def after(
        self, stream: StreamId, found: list[Stored], bounds: dict[str, float]
    ) -> Sequence[Stored]:
        if len(found) <= bounds["max_records"]:
            return found
        return [*found[:-2], dataclasses.replace(found[-2], position=found[-1].position)]


class RepeatsLastRecord(SoundQueue):
    """Interprets a position as the next record to read, not as the last one read."""

    caught_by = checks("""
        acknowledged_records_survive_a_restart aclose_ends_blocked_reads_at_once
        append_can_be_cancelled_at_any_await append_is_not_missed_wherever_a_read_is
        append_wakes_a_blocked_read append_wakes_a_read_in_another_connection
        append_wakes_every_read_that_waits_for_the_stream backend_holds_exactly_what_was_appended
        blocked_readers_get_a_record_that_is_stored_late
        bounds_of_a_read_hold_to_the_record_and_to_the_byte bytes_come_back_unchanged
        cancelled_append_can_be_repeated cancelled_read_loses_nothing
        connection_that_dropped_while_idle_is_replaced deleted_stream_can_be_created_anew
        describe_returns_the_newest_records_first ending_is_stored_in_one_record_with_the_last_chunk
        epochs_and_indexes_are_compared_as_numbers every_call_to_a_server_that_hangs_ends_in_time
        examination_changes_nothing_and_names_each_next_step foreign_entry_harms_no_stream
        indexes_may_have_gaps interleaved_writers_of_many_streams
        largest_chunk_passes_and_a_larger_one_is_refused largest_epoch_and_index_work
        many_entries_in_one_append max_bytes_is_obeyed max_records_is_obeyed
        older_epoch_is_fenced_even_if_it_never_wrote order_holds_across_appends
        position_is_valid_in_another_connection position_of_a_trimmed_record_leads_to_the_oldest_one
        position_of_a_vanished_record_leads_to_the_oldest_one read_can_be_cancelled_at_any_await
        read_goes_on_after_every_position read_returns_more_than_a_page_of_the_server
        read_that_is_blocked_when_its_connection_drops_fails_or_continues reading_removes_nothing
        reads_of_one_connection_do_not_disturb_each_other records_outlive_the_connections
        repeat_continues_where_a_prefix_was_stored repeat_through_another_connection_is_skipped
        repeated_append_is_skipped stale_epoch_is_fenced stale_epoch_is_fenced_in_another_connection
        subscribers_that_come_and_go_leave_nothing ten_readers_each_see_everything waits_are_exact
        zero_wait_returns_at_once
    """)

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        if after:
            epoch, index = decode_position(after, backend=self.backend, stream=stream)
            after = f"{epoch}-{index - 1}" if index else f"{epoch - 1}-{2**62}"
        return await super().read(
            stream, after, max_records=max_records, max_bytes=max_bytes, max_wait=max_wait
        )


class SkipsNextRecord(SoundQueue):
    """Skips a record after a position of another connection."""

    caught_by = checks("""
        append_wakes_every_read_that_waits_for_the_stream
        blocked_readers_get_a_record_that_is_stored_late
        bounds_of_a_read_hold_to_the_record_and_to_the_byte
        cursor_goes_on_with_exactly_the_next_chunk
        cursors_before_the_head_are_refused_and_later_ones_work
        describe_returns_the_newest_records_first joining_at_the_tail_after_the_end_gives_the_ending
        joining_at_the_tail_gives_exactly_what_comes_after
        joining_inside_a_packed_record_of_a_live_stream live_tail_misses_nothing_after_it
        position_is_valid_in_another_connection resuming_at_the_ending_ends_again_at_once
        what_another_connection_has_deleted_is_gone_for_every_call
    """)

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._given: set[tuple[StreamId, str]] = set()

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        is_known = after == START or (stream, after) in self._given
        found = await super().read(
            stream, after, max_records=max_records + 1, max_bytes=max_bytes, max_wait=max_wait
        )
        found = found[0 if is_known else 1 :][:max_records]
        self._given |= {(stream, record.position) for record in found}
        return found


class KnowsOnlyItsOwnPositions(SoundQueue):
    """Uses positions that are valid only within one connection."""

    caught_by = checks("""
        append_wakes_every_read_that_waits_for_the_stream
        blocked_readers_get_a_record_that_is_stored_late
        bounds_of_a_read_hold_to_the_record_and_to_the_byte
        chunk_larger_than_a_record_is_split_and_joined cursor_goes_on_with_exactly_the_next_chunk
        cursors_before_the_head_are_refused_and_later_ones_work
        describe_returns_the_newest_records_first
        expired_stream_begins_anew_for_connections_that_know_it expired_stream_is_gone_by_every_path
        joining_at_the_tail_after_the_end_gives_the_ending
        joining_at_the_tail_gives_exactly_what_comes_after
        joining_inside_a_packed_record_of_a_live_stream live_tail_misses_nothing_after_it
        position_is_valid_in_another_connection read_can_be_cancelled_at_any_await
        read_returns_more_than_a_page_of_the_server resuming_at_the_ending_ends_again_at_once
        trimmed_records_are_gone_for_connections_that_have_read_them
        what_another_connection_has_deleted_is_gone_for_every_call
    """)

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        mark = f"{id(self)}:"
        if after and not after.startswith(mark):
            raise CursorError(f"{after[:20]} is not ours", backend=self.backend, stream=str(stream))
        found = await super().read(
            stream,
            after.removeprefix(mark),
            max_records=max_records,
            max_bytes=max_bytes,
            max_wait=max_wait,
        )
        return [dataclasses.replace(r, position=mark + r.position) for r in found]


class GivesLongPositions(_Reading):
    """Makes positions that are too long for a cursor and not printable."""

    caught_by = checks("positions_are_short_and_printable")

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        return await super().read(
            stream,
            after.strip("\0"),
            max_records=max_records,
            max_bytes=max_bytes,
            max_wait=max_wait,
        )

    async def after(
        self, stream: StreamId, found: list[Stored], bounds: dict[str, float]
    ) -> Sequence[Stored]:
        return [dataclasses.replace(r, position=r.position + "\0") for r in found]


class TakesNonsenseForTheStart(SoundQueue):
    """Reads from the beginning after an invalid position."""

    caught_by = checks("errors_of_the_backend_are_errors_of_streamq invalid_position_is_refused")

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        try:
            decode_position(after, backend=self.backend, stream=stream)
        except CursorError:
            after = START
        return await super().read(
            stream, after, max_records=max_records, max_bytes=max_bytes, max_wait=max_wait
        )


class StopsAtVanishedPosition(SoundQueue):
    """Treats a position whose record is gone as the end of the stream."""

    caught_by = checks("""
        cursors_before_the_head_are_refused_and_later_ones_work
        position_of_a_trimmed_record_leads_to_the_oldest_one
        position_of_a_vanished_record_leads_to_the_oldest_one
        trimmed_records_are_gone_for_connections_that_have_read_them
        what_another_connection_has_deleted_is_gone_for_every_call
    """)

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        key = decode_position(after, backend=self.backend, stream=stream)
        there = self.server.stored(stream)
        if after and there is not None and key not in there.keys:
            await asyncio.sleep(max_wait)
            return []
        return await super().read(
            stream, after, max_records=max_records, max_bytes=max_bytes, max_wait=max_wait
        )


class RemovesWhatIsRead(_Reading):
    """Removes records when they are read, although it declares replay and fan_out."""

    caught_by = checks("""
        acknowledged_records_survive_a_restart
        append_after_another_connection_has_begun_anew_goes_on_there
        append_after_another_connection_has_deleted_begins_anew
        append_wakes_every_read_that_waits_for_the_stream
        appends_of_two_connections_are_one_sequence
        attempt_that_keeps_writing_during_the_takeover_is_not_blended_in
        backend_holds_exactly_what_was_appended blocked_readers_get_a_record_that_is_stored_late
        bounds_of_a_read_hold_to_the_record_and_to_the_byte
        chunk_larger_than_a_record_is_split_and_joined
        chunk_that_lost_its_first_part_is_reported_as_missing
        connection_that_dropped_while_idle_is_replaced cursor_goes_on_with_exactly_the_next_chunk
        cursors_before_the_head_are_refused_and_later_ones_work
        delete_and_append_at_the_same_time_leave_a_sound_stream
        epochs_and_indexes_are_compared_as_numbers every_call_to_a_server_that_hangs_ends_in_time
        every_ending_ends_live_and_late_readers
        expired_stream_begins_anew_for_connections_that_know_it expired_stream_is_gone_by_every_path
        invalid_position_is_refused joining_a_live_stream_at_any_moment_gives_all_of_it
        joining_at_the_tail_gives_exactly_what_comes_after
        joining_inside_a_packed_record_of_a_live_stream
        offsets_are_dense_and_equal_through_many_takeovers
        outage_beyond_the_deadline_is_reported_and_later_work_succeeds
        position_is_valid_in_another_connection position_of_a_trimmed_record_leads_to_the_oldest_one
        read_at_once_leaves_out_nothing_that_is_stored read_can_be_cancelled_at_any_await
        read_goes_on_after_every_position read_returns_more_bytes_than_a_page_of_the_server
        read_returns_more_than_a_page_of_the_server
        read_within_which_a_stream_begins_again_mixes_nothing_up
        reader_misses_nothing_when_every_other_read reading_removes_nothing
        reads_of_one_connection_do_not_disturb_each_other
        replay_that_differs_is_refused_and_changes_nothing
        replaying_attempt_sends_everything_again_and_is_delivered_once
        resuming_at_the_ending_ends_again_at_once second_seal_changes_nothing
        slow_backend_is_neither_an_error_nor_a_cause_of_disorder
        stream_goes_on_after_the_server_hung stream_is_delivered_once_through_dropped_connections
        stream_is_delivered_once_when_every_other_append stream_without_chunks_ends_as_well
        ten_live_readers_each_get_everything ten_readers_each_see_everything
        trimmed_records_are_gone_for_connections_that_have_read_them
        what_another_connection_has_deleted_is_gone_for_every_call
    """)

    async def after(
        self, stream: StreamId, found: list[Stored], bounds: dict[str, float]
    ) -> Sequence[Stored]:
        self.server.forget(stream, slice(0, len(found)))
        return found


class ServesFirstReaderOnly(SoundQueue):
    """Gives a stream to the connection that read it first, and nothing to the others."""

    caught_by = checks("""
        append_after_another_connection_has_begun_anew_goes_on_there
        append_after_another_connection_has_deleted_begins_anew
        append_wakes_every_read_that_waits_for_the_stream
        appends_of_two_connections_are_one_sequence
        attempt_that_keeps_writing_during_the_takeover_is_not_blended_in
        blocked_readers_get_a_record_that_is_stored_late
        bounds_of_a_read_hold_to_the_record_and_to_the_byte
        chunk_larger_than_a_record_is_split_and_joined cursor_goes_on_with_exactly_the_next_chunk
        cursors_before_the_head_are_refused_and_later_ones_work
        delete_and_append_at_the_same_time_leave_a_sound_stream
        every_ending_ends_live_and_late_readers
        expired_stream_begins_anew_for_connections_that_know_it expired_stream_is_gone_by_every_path
        joining_a_live_stream_at_any_moment_gives_all_of_it
        joining_inside_a_packed_record_of_a_live_stream
        offsets_are_dense_and_equal_through_many_takeovers position_is_valid_in_another_connection
        read_can_be_cancelled_at_any_await read_returns_more_than_a_page_of_the_server
        replay_that_differs_is_refused_and_changes_nothing resuming_at_the_ending_ends_again_at_once
        second_seal_changes_nothing stream_goes_on_after_the_server_hung
        stream_is_delivered_once_through_dropped_connections
        stream_is_delivered_once_when_every_other_append ten_live_readers_each_get_everything
        ten_readers_each_see_everything trimmed_records_are_gone_for_connections_that_have_read_them
        what_another_connection_has_deleted_is_gone_for_every_call
    """)

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        key = ("reader", stream)
        owner = self.server.notes.setdefault(key, self)
        if owner is not self and not getattr(owner, "is_closed", True):
            await asyncio.sleep(max_wait)
            return []
        return await super().read(
            stream, after, max_records=max_records, max_bytes=max_bytes, max_wait=max_wait
        )


class WakesOneReaderOnly(SoundQueue):
    """Wakes one of the readers of a stream; the others check again when their wait has ended."""

    caught_by = checks("""
        append_wakes_every_read_that_waits_for_the_stream
        blocked_readers_get_a_record_that_is_stored_late
        expired_stream_begins_anew_for_connections_that_know_it ten_readers_each_see_everything
    """)

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        waiting = self.server.notes.setdefault(("waiting", stream), set())
        assert isinstance(waiting, set)
        found = await super().read(
            stream, after, max_records=max_records, max_bytes=max_bytes, max_wait=0
        )
        if found or not max_wait:
            return found
        if waiting:
            await asyncio.sleep(max_wait)
            max_wait = 0
        me = object()
        waiting.add(me)
        try:
            return await super().read(
                stream, after, max_records=max_records, max_bytes=max_bytes, max_wait=max_wait
            )
        finally:
            waiting.discard(me)


class TrimsSilently(SoundQueue):
    """Keeps the newest two hundred records of a stream."""

    caught_by = checks("""
        cancelled_append_can_be_repeated many_entries_in_one_append
        read_at_once_leaves_out_nothing_that_is_stored read_returns_more_than_a_page_of_the_server
    """)

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        self.server.forget(stream, slice(None, -200))
        return await super().read(
            stream, after, max_records=max_records, max_bytes=max_bytes, max_wait=max_wait
        )
