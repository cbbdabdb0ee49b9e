"""Sabotaged drivers that store wrong records."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from datetime import timedelta

from streamq.driver import BackendError, ChunkQueue, Entry, StreamId, encode_position

from .server import SoundQueue, checks


class DropsLastRecord(SoundQueue):
    """Stores all but the last record of an append that has several."""

    caught_by = checks("""
        append_can_be_cancelled_at_any_await appends_of_two_connections_are_one_sequence
        backend_holds_exactly_what_was_appended bounds_of_a_read_hold_to_the_record_and_to_the_byte
        bytes_come_back_unchanged cancelled_append_can_be_repeated
        chunk_larger_than_a_record_is_split_and_joined
        delete_and_append_at_the_same_time_leave_a_sound_stream
        describe_and_delete_go_beyond_a_page_of_the_server
        describe_returns_all_when_more_are_requested describe_returns_the_newest_records_first
        description_within_which_a_stream_changes_is_of_one_moment
        descriptions_and_listings_count_what_is_stored
        every_call_to_a_server_that_hangs_ends_in_time
        largest_chunk_passes_and_a_larger_one_is_refused largest_declared_record_fits
        many_entries_in_one_append max_bytes_is_obeyed max_records_is_obeyed
        position_of_a_trimmed_record_leads_to_the_oldest_one
        position_of_a_vanished_record_leads_to_the_oldest_one positions_are_short_and_printable
        read_at_once_leaves_out_nothing_that_is_stored read_can_be_cancelled_at_any_await
        read_goes_on_after_every_position read_returns_more_than_a_page_of_the_server
        read_within_which_a_stream_begins_again_mixes_nothing_up reading_removes_nothing
        reads_of_one_connection_do_not_disturb_each_other records_outlive_the_connections
        repeat_continues_where_a_prefix_was_stored repeat_through_another_connection_is_skipped
        repeat_within_the_append_adds_nothing repeated_append_is_skipped
        stream_is_delivered_once_when_every_other_append takeover_within_an_append_is_clean
        ten_readers_each_see_everything trimmed_records_are_gone_for_connections_that_have_read_them
        two_appends_of_one_epoch_keep_the_order_of_indexes
        what_another_connection_has_deleted_is_gone_for_every_call
    """)

    def altered(self, stream: StreamId, entries: list[Entry]) -> list[Entry]:
        return entries[: max(1, len(entries) - 1)]


class DropsFirstRecord(SoundQueue):
    """Stores all but the first record of an append that has several."""

    caught_by = checks("""
        append_can_be_cancelled_at_any_await appends_of_two_connections_are_one_sequence
        backend_holds_exactly_what_was_appended bounds_of_a_read_hold_to_the_record_and_to_the_byte
        bytes_come_back_unchanged cancelled_append_can_be_repeated
        chunk_larger_than_a_record_is_split_and_joined
        describe_and_delete_go_beyond_a_page_of_the_server
        describe_returns_all_when_more_are_requested describe_returns_the_newest_records_first
        description_within_which_a_stream_changes_is_of_one_moment
        descriptions_and_listings_count_what_is_stored
        every_call_to_a_server_that_hangs_ends_in_time
        largest_chunk_passes_and_a_larger_one_is_refused largest_declared_record_fits
        many_entries_in_one_append max_bytes_is_obeyed max_records_is_obeyed
        position_of_a_trimmed_record_leads_to_the_oldest_one
        position_of_a_vanished_record_leads_to_the_oldest_one positions_are_short_and_printable
        read_at_once_leaves_out_nothing_that_is_stored read_can_be_cancelled_at_any_await
        read_goes_on_after_every_position read_returns_more_than_a_page_of_the_server
        read_within_which_a_stream_begins_again_mixes_nothing_up reading_removes_nothing
        reads_of_one_connection_do_not_disturb_each_other records_outlive_the_connections
        repeat_continues_where_a_prefix_was_stored repeat_through_another_connection_is_skipped
        repeat_within_the_append_adds_nothing repeated_append_is_skipped
        stream_is_delivered_once_when_every_other_append takeover_within_an_append_is_clean
        ten_readers_each_see_everything trimmed_records_are_gone_for_connections_that_have_read_them
        two_appends_of_one_epoch_keep_the_order_of_indexes
        what_another_connection_has_deleted_is_gone_for_every_call
    """)

    def altered(self, stream: StreamId, entries: list[Entry]) -> list[Entry]:
        return entries[-max(1, len(entries) - 1) :]


class DropsRestOfLargeAppend(SoundQueue):
    """Stores only as much of an append as fits into one request of its client."""

    caught_by = checks("""
        describe_and_delete_go_beyond_a_page_of_the_server many_entries_in_one_append
        read_returns_more_than_a_page_of_the_server
    """)

    def altered(self, stream: StreamId, entries: list[Entry]) -> list[Entry]:
        return entries[:250]


class ReordersTwoRecords(SoundQueue):
    """Swaps the data of the last two records of an append."""

    caught_by = checks("""
        append_can_be_cancelled_at_any_await appends_of_two_connections_are_one_sequence
        backend_holds_exactly_what_was_appended
        bounds_of_a_read_hold_to_the_record_and_to_the_byte bytes_come_back_unchanged
        cancelled_append_can_be_repeated chunk_larger_than_a_record_is_split_and_joined
        delete_and_append_at_the_same_time_leave_a_sound_stream
        describe_and_delete_go_beyond_a_page_of_the_server
        describe_returns_all_when_more_are_requested describe_returns_the_newest_records_first
        description_within_which_a_stream_changes_is_of_one_moment
        every_call_to_a_server_that_hangs_ends_in_time
        largest_chunk_passes_and_a_larger_one_is_refused many_entries_in_one_append
        max_bytes_is_obeyed max_records_is_obeyed
        position_of_a_trimmed_record_leads_to_the_oldest_one
        position_of_a_vanished_record_leads_to_the_oldest_one
        read_at_once_leaves_out_nothing_that_is_stored read_can_be_cancelled_at_any_await
        read_goes_on_after_every_position read_returns_more_than_a_page_of_the_server
        read_within_which_a_stream_begins_again_mixes_nothing_up reading_removes_nothing
        reads_of_one_connection_do_not_disturb_each_other records_outlive_the_connections
        repeat_continues_where_a_prefix_was_stored repeat_through_another_connection_is_skipped
        repeat_within_the_append_adds_nothing repeated_append_is_skipped
        stream_is_delivered_once_when_every_other_append takeover_within_an_append_is_clean
        ten_readers_each_see_everything
        trimmed_records_are_gone_for_connections_that_have_read_them
        two_appends_of_one_epoch_keep_the_order_of_indexes
        what_another_connection_has_deleted_is_gone_for_every_call
    """)

    def altered(self, stream: StreamId, entries: list[Entry]) -> list[Entry]:
        if len(entries) > 1:
            first, second = entries[-2:]
            entries[-2:] = (
                dataclasses.replace(first, data=second.data),
                dataclasses.replace(second, data=first.data),
            )
        return entries


class AltersLineEnds(SoundQueue):
    """Treats bytes as text, and converts line endings."""

    caught_by = checks("backend_holds_exactly_what_was_appended bytes_come_back_unchanged")

    def altered(self, stream: StreamId, entries: list[Entry]) -> list[Entry]:
        return [dataclasses.replace(e, data=e.data.replace(b"\r\n", b"\n")) for e in entries]


class DropsEmptyRecords(SoundQueue):
    """Drops empty records."""

    caught_by = checks("backend_holds_exactly_what_was_appended bytes_come_back_unchanged")

    def altered(self, stream: StreamId, entries: list[Entry]) -> list[Entry]:
        return [entry for entry in entries if entry.data]


class TruncatesLargeRecords(SoundQueue):
    """Truncates long records silently."""

    caught_by = checks("""
        full_backend_is_reported_keeps_its_records_and_recovers
        largest_chunk_passes_and_a_larger_one_is_refused largest_declared_record_fits
        read_returns_more_bytes_than_a_page_of_the_server
        record_past_the_limit_is_stored_whole_or_refused
    """)

    def altered(self, stream: StreamId, entries: list[Entry]) -> list[Entry]:
        return [dataclasses.replace(entry, data=entry.data[:70_000]) for entry in entries]


class TruncatesPastTheLimit(SoundQueue):
    """Truncates records that are larger than declared, instead of refusing them."""

    caught_by = checks("record_past_the_limit_is_stored_whole_or_refused")

    def altered(self, stream: StreamId, entries: list[Entry]) -> list[Entry]:
        return [dataclasses.replace(entry, data=entry.data[: self.max_bytes]) for entry in entries]


class SkipsWhatItCannotParse(SoundQueue):
    """Inspects records, and drops those that look damaged."""

    caught_by = checks("damaged_record_is_an_error_after_what_was_intact")

    def altered(self, stream: StreamId, entries: list[Entry]) -> list[Entry]:
        return [entry for entry in entries if not entry.data.endswith(b"not a record")]


class MixesUpStreams(SoundQueue):
    """Keeps the stream of the latest call in the connection, where the next call changes it."""

    caught_by = checks("""
        expired_stream_is_gone_by_every_path interleaved_writers_of_many_streams
        listing_is_complete_beyond_one_page
    """)

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        self._stream = stream
        await self.link()
        await super().append(self._stream, entries, ttl=ttl)


class KeepsNumbersAsFloats(SoundQueue):
    """Stores epochs and indexes as floating point, as JSON in a browser does."""

    caught_by = checks("largest_epoch_and_index_work")

    def altered(self, stream: StreamId, entries: list[Entry]) -> list[Entry]:
        return [Entry(int(float(e.epoch)), int(float(e.index)), e.data) for e in entries]


class WantsIndexesWithoutGaps(SoundQueue):
    """Refuses an index that is not the next one."""

    caught_by = checks("""
        appends_of_two_connections_are_one_sequence
        damaged_record_is_an_error_after_what_was_intact
        epochs_and_indexes_are_compared_as_numbers indexes_may_have_gaps
        largest_epoch_and_index_work record_past_the_limit_is_stored_whole_or_refused
    """)

    def altered(self, stream: StreamId, entries: list[Entry]) -> list[Entry]:
        epoch, index = self.server.newest(stream)
        for entry in entries:
            if entry.epoch == epoch and entry.index > index + 1:
                raise BackendError(f"{index + 1} should be next", backend=self.backend)
            epoch, index = entry.epoch, entry.index
        return entries


class StoresRepeats(SoundQueue):
    """Stores an append that is repeated once more."""

    caught_by = checks("""
        append_can_be_cancelled_at_any_await appends_of_two_connections_are_one_sequence
        cancelled_append_can_be_repeated descriptions_and_listings_count_what_is_stored
        repeat_within_the_append_adds_nothing repeated_append_is_skipped
        stream_is_delivered_once_when_every_other_append
        trimmed_records_are_gone_for_connections_that_have_read_them
        two_appends_of_one_epoch_keep_the_order_of_indexes two_writers_cannot_hold_one_epoch
    """)

    def altered(self, stream: StreamId, entries: list[Entry]) -> list[Entry]:
        epoch, index = self.server.newest(stream)
        if entries and entries[-1].epoch == epoch and entries[-1].index <= index:
            shift = index + 1 - entries[0].index
            return [Entry(e.epoch, e.index + shift, e.data) for e in entries]
        return entries


class RefusesPartOfWhatIsStored(SoundQueue):
    """Treats an append as a repeat only if all of it is already stored."""

    caught_by = checks("""
        appends_of_two_connections_are_one_sequence descriptions_and_listings_count_what_is_stored
        repeat_continues_where_a_prefix_was_stored repeat_through_another_connection_is_skipped
        stream_is_delivered_once_when_every_other_append
    """)

    def altered(self, stream: StreamId, entries: list[Entry]) -> list[Entry]:
        newest = self.server.newest(stream)
        keys = [(entry.epoch, entry.index) for entry in entries]
        if len(keys) > 1 and keys[0] <= newest < keys[-1] and keys[0][0] == newest[0]:
            raise BackendError("some of it is stored already", backend=self.backend)
        return entries


class KnowsOnlyItsOwnRepeats(SoundQueue):
    """Remembers stored records in the connection, not in the backend."""

    caught_by = checks("""
        appends_of_two_connections_are_one_sequence descriptions_and_listings_count_what_is_stored
        repeat_through_another_connection_is_skipped repeat_within_the_append_adds_nothing
        two_appends_of_one_epoch_keep_the_order_of_indexes two_writers_cannot_hold_one_epoch
    """)

    def altered(self, stream: StreamId, entries: list[Entry]) -> list[Entry]:
        writers = self.server.notes.setdefault(stream, set())
        assert isinstance(writers, set)
        is_first = self not in writers
        writers.add(self)
        epoch, index = self.server.newest(stream)
        if is_first and entries and entries[0].epoch == epoch and entries[0].index <= index:
            shift = index + 1 - entries[0].index
            return [Entry(e.epoch, e.index + shift, e.data) for e in entries]
        return entries


def _swallow(sent: asyncio.Task[None]) -> None:
    if not sent.cancelled():
        sent.exception()


class AcknowledgesBeforeItStores(SoundQueue):
    """Acknowledges an append when it is sent; waits for the result before the next one."""

    # No refusal reaches the caller, so every check of a refusal fails.
    caught_by = checks("""
        aclose_ends_appends_that_are_under_way
        append_after_another_connection_has_begun_anew_goes_on_there
        appends_of_two_connections_are_one_sequence
        attempt_that_keeps_writing_during_the_takeover_is_not_blended_in
        descriptions_and_listings_count_what_is_stored
        every_call_to_a_server_that_hangs_ends_in_time
        full_backend_is_reported_keeps_its_records_and_recovers
        gap_is_one_event_for_readers_that_ask_for_it
        joining_a_live_stream_at_any_moment_gives_all_of_it next_attempt_counts_on_from_what_is_left
        next_attempt_is_delivered_whole_after_a_reset
        offsets_are_dense_and_equal_through_many_takeovers
        older_epoch_is_fenced_even_if_it_never_wrote read_only_backend_is_reported
        reader_from_the_beginning_is_refused_with_the_oldest_offset
        reader_notices_a_restart_only_if_records_were_lost
        record_past_the_limit_is_stored_whole_or_refused refused_append_shortens_nothing
        stale_attempt_cannot_end_the_stream stale_epoch_is_fenced
        stale_epoch_is_fenced_in_another_connection
        stream_is_delivered_once_through_dropped_connections
        takeover_leaves_nothing_of_the_old_epoch_behind_it takeover_within_an_append_is_clean
        ten_readers_each_see_everything two_appends_of_one_epoch_keep_the_order_of_indexes
    """)

    _sent: asyncio.Task[None] | None = None

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        self.check_open(stream)
        before = self._sent
        self._sent = asyncio.ensure_future(super().append(stream, entries, ttl=ttl))
        self._sent.add_done_callback(_swallow)
        await asyncio.wait({before} if before else {asyncio.ensure_future(asyncio.sleep(0))})

    async def aclose(self) -> None:
        if self._sent is not None:
            await asyncio.wait({self._sent})
        await super().aclose()


class StoresHalfOfCancelledAppend(SoundQueue):
    """Stores half of a cancelled append, and ignores its repeat."""

    caught_by = checks("append_can_be_cancelled_at_any_await cancelled_append_can_be_repeated")

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        known = self.server.notes.setdefault("half", set())
        assert isinstance(known, set)
        key = (stream, entries[-1].epoch, entries[-1].index) if entries else None
        if key in known:
            return
        try:
            await super().append(stream, entries, ttl=ttl)
        except asyncio.CancelledError:
            link = await self.server.connect(self.options.ttl)
            await link.append(stream, entries[: len(entries) // 2], ttl=ttl)
            known.add(key)
            raise


class CreatesStreamOfNothing(SoundQueue):
    """Creates a stream for an append without entries."""

    caught_by = checks("append_of_nothing_has_no_effect")

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        await super().append(stream, entries, ttl=ttl)
        if not entries and self.server.stored(stream) is None:
            link = await self.link()
            await link.append(stream, [Entry(1, 0, b"")], ttl=ttl)
            self.server.forget(stream, slice(None))


class GivesOnePositionToAnAppend(SoundQueue):
    """Numbers its positions per append, so that those of one append are all the same."""

    caught_by = checks("""
        bounds_of_a_read_hold_to_the_record_and_to_the_byte
        chunk_larger_than_a_record_is_split_and_joined describe_returns_the_newest_records_first
        largest_chunk_passes_and_a_larger_one_is_refused max_bytes_is_obeyed max_records_is_obeyed
        position_is_valid_in_another_connection
        position_of_a_trimmed_record_leads_to_the_oldest_one positions_are_short_and_printable
        read_can_be_cancelled_at_any_await read_goes_on_after_every_position
        read_returns_more_than_a_page_of_the_server
        reads_of_one_connection_do_not_disturb_each_other
        trimmed_records_are_gone_for_connections_that_have_read_them
    """)

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        await super().append(stream, entries, ttl=ttl)
        found = self.server.stored(stream)
        if found is not None and len(entries) > 1:
            keys = {(entry.epoch, entry.index) for entry in entries}
            last = encode_position(found.keys[-1])
            found.records[:] = [
                dataclasses.replace(record, position=last) if key in keys else record
                for key, record in zip(found.keys, found.records, strict=True)
            ]


class ForgetsTheSeal(SoundQueue):
    """Stores all of an append but its last record, if that is the one that ends the stream."""

    caught_by = checks("""
        append_can_shorten_the_ttl_and_the_next_one_restores_it
        attempt_that_keeps_writing_during_the_takeover_is_not_blended_in
        attempt_that_wrote_nothing_is_counted_without_a_reset
        chunk_larger_than_a_record_is_split_and_joined
        chunk_that_lost_its_first_part_is_reported_as_missing
        cursor_goes_on_with_exactly_the_next_chunk
        cursors_before_the_head_are_refused_and_later_ones_work
        ending_is_stored_in_one_record_with_the_last_chunk
        ending_whose_acknowledgement_is_lost_is_delivered_once
        every_ending_ends_live_and_late_readers
        expired_stream_begins_anew_for_connections_that_know_it expired_stream_is_gone_by_every_path
        full_buffer_blocks_refuses_or_drops_as_configured
        gap_is_one_event_for_readers_that_ask_for_it
        joining_a_live_stream_at_any_moment_gives_all_of_it
        joining_at_the_tail_after_the_end_gives_the_ending
        joining_at_the_tail_gives_exactly_what_comes_after
        joining_at_the_tail_of_a_missing_stream_gives_all_of_it
        joining_inside_a_packed_record_of_a_live_stream
        largest_chunk_passes_and_a_larger_one_is_refused
        last_append_sets_the_ttl_whichever_connection_makes_it
        late_reader_gets_everything_and_the_end live_tail_misses_nothing_after_it
        next_attempt_counts_on_from_what_is_left next_attempt_is_delivered_whole_after_a_reset
        offsets_are_dense_and_equal_through_many_takeovers
        older_attempt_that_opens_after_a_newer_one_is_refused
        opening_a_writer_can_be_cancelled_at_any_await
        outage_beyond_the_deadline_is_reported_and_later_work_succeeds
        reader_can_be_cancelled_at_any_await
        reader_from_the_beginning_is_refused_with_the_oldest_offset
        reader_misses_nothing_when_every_other_read
        reader_notices_a_restart_only_if_records_were_lost
        reader_past_the_trimmed_records_is_not_affected refused_append_shortens_nothing
        repeat_without_a_ttl_sets_the_usual_one repeated_append_sets_the_shorter_ttl_again
        replay_that_differs_is_refused_and_changes_nothing
        replaying_attempt_sends_everything_again_and_is_delivered_once
        resuming_at_the_ending_ends_again_at_once
        resuming_attempt_goes_on_after_the_last_durable_chunk sealed_stream_expires_by_its_own_ttl
        second_seal_changes_nothing slow_backend_is_neither_an_error_nor_a_cause_of_disorder
        stale_attempt_cannot_end_the_stream status_reports_offset_attempt_and_seal
        stream_goes_on_after_the_server_hung stream_is_delivered_once_through_dropped_connections
        stream_is_delivered_once_when_every_other_append stream_without_chunks_ends_as_well
        sweep_leaves_nothing_of_several_large_streams ten_live_readers_each_get_everything
        two_writers_cannot_hold_one_epoch writer_can_be_cancelled_at_any_await
        writer_that_waits_for_room_can_be_cancelled
    """)

    # Every reader waits for an ending that never comes.

    async def store(
        self, link: ChunkQueue, stream: StreamId, entries: Sequence[Entry], ttl: timedelta | None
    ) -> None:
        await super().store(link, stream, entries if ttl is None else entries[:-1], ttl)
