"""Sabotaged drivers that describe, delete or list wrongly."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from datetime import timedelta
from fnmatch import fnmatchcase

from streamq.driver import (
    BackendError,
    ChunkQueue,
    Entry,
    FencedError,
    Stored,
    StreamId,
    StreamInfo,
    StreamNotFoundError,
)

from .server import ROUND_TRIP_SECONDS, SoundQueue, checks


class DescribesTheOldest(SoundQueue):
    """Returns the oldest records instead of the newest."""

    caught_by = checks("""
        attempt_that_keeps_writing_during_the_takeover_is_not_blended_in
        describe_and_delete_go_beyond_a_page_of_the_server
        describe_reflects_every_append_that_returned describe_returns_the_newest_records_first
        full_backend_is_reported_keeps_its_records_and_recovers
        joining_at_the_tail_gives_exactly_what_comes_after
        latest_value_is_never_one_that_a_reset_has_voided
        offsets_are_dense_and_equal_through_many_takeovers open_queues_heal_after_a_restart
        takeover_leaves_nothing_of_the_old_epoch_behind_it
    """)

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        info = await super().describe(stream, last=1_000)
        return dataclasses.replace(info, last=info.last[::-1][:last][::-1])


class DescribesInOrderOfAppend(SoundQueue):
    """Returns the newest records, with the newest of them at the end."""

    caught_by = checks("""
        append_after_another_connection_has_begun_anew_goes_on_there
        append_after_another_connection_has_deleted_begins_anew
        appends_of_two_connections_are_one_sequence
        attempt_that_keeps_writing_during_the_takeover_is_not_blended_in
        attempt_that_wrote_nothing_is_counted_without_a_reset
        describe_and_delete_go_beyond_a_page_of_the_server
        describe_returns_all_when_more_are_requested describe_returns_the_newest_records_first
        description_within_which_a_stream_changes_is_of_one_moment
        expired_stream_begins_anew_for_connections_that_know_it
        joining_at_the_tail_gives_exactly_what_comes_after
        next_attempt_counts_on_from_what_is_left next_attempt_is_delivered_whole_after_a_reset
        offsets_are_dense_and_equal_through_many_takeovers
        opening_a_writer_can_be_cancelled_at_any_await
        outage_beyond_the_deadline_is_reported_and_later_work_succeeds
        position_of_a_trimmed_record_leads_to_the_oldest_one
        replay_that_differs_is_refused_and_changes_nothing
        replaying_attempt_sends_everything_again_and_is_delivered_once
        resuming_attempt_goes_on_after_the_last_durable_chunk stale_attempt_cannot_end_the_stream
        takeover_leaves_nothing_of_the_old_epoch_behind_it
        trimmed_records_are_gone_for_connections_that_have_read_them
        what_another_connection_has_deleted_is_gone_for_every_call
    """)

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        info = await super().describe(stream, last=last)
        return dataclasses.replace(info, last=info.last[::-1])


class DescribesLate(SoundQueue):
    """Describes a replica that is behind by a little more than a round trip."""

    caught_by = checks("""
        attempt_that_keeps_writing_during_the_takeover_is_not_blended_in
        attempt_that_wrote_nothing_is_counted_without_a_reset
        describe_and_delete_go_beyond_a_page_of_the_server
        describe_reflects_every_append_that_returned describe_returns_all_when_more_are_requested
        describe_returns_the_newest_records_first
        description_within_which_a_stream_changes_is_of_one_moment
        full_backend_is_reported_keeps_its_records_and_recovers
        joining_at_the_tail_after_the_end_gives_the_ending
        joining_at_the_tail_gives_exactly_what_comes_after live_tail_misses_nothing_after_it
        next_attempt_counts_on_from_what_is_left next_attempt_is_delivered_whole_after_a_reset
        offsets_are_dense_and_equal_through_many_takeovers open_queues_heal_after_a_restart
        outage_beyond_the_deadline_is_reported_and_later_work_succeeds
        replay_that_differs_is_refused_and_changes_nothing
        replaying_attempt_sends_everything_again_and_is_delivered_once
        resuming_attempt_goes_on_after_the_last_durable_chunk stale_attempt_cannot_end_the_stream
        status_reports_offset_attempt_and_seal takeover_leaves_nothing_of_the_old_epoch_behind_it
    """)

    async def store(
        self, link: ChunkQueue, stream: StreamId, entries: Sequence[Entry], ttl: timedelta | None
    ) -> None:
        await super().store(link, stream, entries, ttl)
        self.server.notes[stream] = asyncio.get_running_loop().time()

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        info = await super().describe(stream, last=last + 1)
        stored = self.server.notes.get(stream, 0.0)
        assert isinstance(stored, float)
        age = asyncio.get_running_loop().time() - stored
        is_late = len(info.last) > 1 and age < 1.1 * ROUND_TRIP_SECONDS
        return dataclasses.replace(info, last=info.last[int(is_late) :][:last])


class DescribesNoMoreThanThereIs(SoundQueue):
    """Refuses to return fifty records where there are fewer."""

    caught_by = checks("""
        describe_and_delete_go_beyond_a_page_of_the_server
        describe_returns_all_when_more_are_requested
    """)

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        info = await super().describe(stream, last=last)
        if len(info.last) < last and last >= 50:
            raise BackendError("index out of range", backend=self.backend, stream=str(stream))
        return info


class DescribesNothingAsEmpty(SoundQueue):
    """Describes a missing stream as an empty one, if no records are requested."""

    caught_by = checks("""
        append_can_shorten_the_ttl_and_the_next_one_restores_it append_of_nothing_has_no_effect
        attempt_that_wrote_nothing_is_counted_without_a_reset
        delete_and_append_at_the_same_time_leave_a_sound_stream
        delete_removes_the_stream_for_everyone describe_and_delete_go_beyond_a_page_of_the_server
        describe_of_a_missing_stream_raises errors_of_the_backend_are_errors_of_streamq
        expired_stream_is_gone_by_every_path reader_of_a_deleted_stream_gets_an_error
        repeated_append_sets_the_shorter_ttl_again sealed_stream_expires_by_its_own_ttl
        stream_expires_after_its_ttl sweep_leaves_nothing_of_several_large_streams
        sweep_removes_expired_streams_only
        what_another_connection_has_deleted_is_gone_for_every_call
    """)

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        try:
            return await super().describe(stream, last=last)
        except StreamNotFoundError:
            if last:
                raise
            return StreamInfo(stream)


class CountsWrongly(SoundQueue):
    """Counts appends instead of records."""

    caught_by = checks("""
        append_after_another_connection_has_begun_anew_goes_on_there
        append_after_another_connection_has_deleted_begins_anew
        appends_of_two_connections_are_one_sequence describe_returns_the_newest_records_first
        descriptions_and_listings_count_what_is_stored
        what_another_connection_has_deleted_is_gone_for_every_call
    """)

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        return dataclasses.replace(await super().describe(stream, last=last), records=1)


class MeasuresInKilobytes(SoundQueue):
    """Returns the size in another unit."""

    caught_by = checks("descriptions_and_listings_count_what_is_stored")

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        info = await super().describe(stream, last=last)
        return dataclasses.replace(info, size_bytes=(info.size_bytes or 0) // 1024)


class DeleteLeavesRecords(SoundQueue):
    """Hides a stream that is deleted, and keeps its records."""

    caught_by = checks("""
        delete_leaves_nothing_in_the_backend describe_and_delete_go_beyond_a_page_of_the_server
    """)

    async def delete(self, stream: StreamId) -> None:
        found = self.server.stored(stream)
        self.server.trash[stream] = [] if found is None else [r.data for r in found.records]
        await super().delete(stream)


class DeleteKeepsTheFence(SoundQueue):
    """Deletes the records, but not the newest epoch."""

    caught_by = checks("""
        append_after_another_connection_has_begun_anew_goes_on_there
        append_after_another_connection_has_deleted_begins_anew deleted_stream_can_be_created_anew
        descriptions_and_listings_count_what_is_stored
    """)

    async def delete(self, stream: StreamId) -> None:
        self.server.notes[stream] = self.server.newest(stream)[0]
        await super().delete(stream)

    def altered(self, stream: StreamId, entries: list[Entry]) -> list[Entry]:
        fence = self.server.notes.get(stream, 0)
        assert isinstance(fence, int)
        if any(entry.epoch < fence for entry in entries):
            raise FencedError("an older one", backend=self.backend, stream=str(stream))
        return entries


class DeletesForItselfOnly(SoundQueue):
    """Deletes what its own connection sees, until something is appended again."""

    caught_by = checks("""
        append_after_another_connection_has_deleted_begins_anew
        delete_and_append_at_the_same_time_leave_a_sound_stream delete_leaves_nothing_in_the_backend
        delete_removes_the_stream_for_everyone describe_and_delete_go_beyond_a_page_of_the_server
        descriptions_and_listings_count_what_is_stored listing_goes_on_while_streams_come_and_go
        reader_of_a_deleted_stream_gets_an_error
        what_another_connection_has_deleted_is_gone_for_every_call
    """)

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self._deleted: set[StreamId] = set()

    async def delete(self, stream: StreamId) -> None:
        await self.link()
        if self.server.stored(stream) is not None:
            self._deleted.add(stream)

    def altered(self, stream: StreamId, entries: list[Entry]) -> list[Entry]:
        if stream in self._deleted:
            self._deleted.discard(stream)
            self.server.disk.remove(stream)
        return entries

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        if stream in self._deleted:
            raise StreamNotFoundError("deleted", backend=self.backend, stream=str(stream))
        return await super().describe(stream, last=last)


class RefusesToDeleteNothing(SoundQueue):
    """Raises when there is nothing to delete."""

    caught_by = checks("""
        delete_is_idempotent describing_deleting_and_listing_can_be_cancelled_at_any_await
    """)

    async def delete(self, stream: StreamId) -> None:
        await super().describe(stream)
        await super().delete(stream)


class _Listing(SoundQueue):
    """Lists the streams for which :meth:`is_listed` is true."""

    def is_listed(self, stream: StreamId, tenant: str, prefix: str) -> bool:
        raise NotImplementedError

    async def listed(self, tenant: str, prefix: str) -> list[StreamInfo]:
        await super().listed(tenant, prefix)
        names = [each for each in self.server.disk.names() if self.server.stored(each)]
        return [StreamInfo(each) for each in names if self.is_listed(each, tenant, prefix)]


class ListsEveryTenant(_Listing):
    """Lists the streams of other tenants, too."""

    caught_by = checks("streams_lists_one_tenant_by_prefix")

    def is_listed(self, stream: StreamId, tenant: str, prefix: str) -> bool:
        return stream.name.startswith(prefix)


class TakesTenantForPrefix(_Listing):
    """Lists the streams of tenants whose name begins with the tenant's name."""

    caught_by = checks("streams_lists_one_tenant_by_prefix")

    def is_listed(self, stream: StreamId, tenant: str, prefix: str) -> bool:
        return stream.tenant.startswith(tenant) and stream.name.startswith(prefix)


class IgnoresPrefix(_Listing):
    """Lists all streams of the tenant."""

    caught_by = checks("prefix_is_taken_literally streams_lists_one_tenant_by_prefix")

    def is_listed(self, stream: StreamId, tenant: str, prefix: str) -> bool:
        return stream.tenant == tenant


class TakesPrefixForPattern(_Listing):
    """Passes the prefix unescaped to the backend's pattern language."""

    caught_by = checks("prefix_is_taken_literally")

    def is_listed(self, stream: StreamId, tenant: str, prefix: str) -> bool:
        return stream.tenant == tenant and fnmatchcase(stream.name, prefix + "*")


class ListsOnePage(SoundQueue):
    """Lists the first thousand streams."""

    caught_by = checks("listing_is_complete_beyond_one_page")

    async def listed(self, tenant: str, prefix: str) -> list[StreamInfo]:
        return (await super().listed(tenant, prefix))[:1_000]


class ListsPagesThatOverlap(SoundQueue):
    """Lists the last stream of a page on the next one, too."""

    caught_by = checks("listing_is_complete_beyond_one_page")

    async def listed(self, tenant: str, prefix: str) -> list[StreamInfo]:
        found = await super().listed(tenant, prefix)
        return found[:1_000] + found[999:] if len(found) > 1_000 else found


class ListsNothingBesideForeignEntries(SoundQueue):
    """Fails at a name that is none, whatever else there is."""

    caught_by = checks("foreign_entry_harms_no_stream")

    async def listed(self, tenant: str, prefix: str) -> list[StreamInfo]:
        if tenant in self.server.foreign:
            raise BackendError("a key is no name of a stream", backend=self.backend)
        return await super().listed(tenant, prefix)


class _Renaming(SoundQueue):
    """Stores a stream under the name that :meth:`renamed` returns."""

    def renamed(self, stream: StreamId) -> StreamId:
        raise NotImplementedError

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        await super().append(self.renamed(stream), entries, ttl=ttl)

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        return await super().read(
            self.renamed(stream),
            after,
            max_records=max_records,
            max_bytes=max_bytes,
            max_wait=max_wait,
        )


class FoldsCase(_Renaming):
    """Takes names that differ in case for one."""

    caught_by = checks("any_allowed_name_works prefix_is_taken_literally")

    def renamed(self, stream: StreamId) -> StreamId:
        return StreamId(stream.tenant, stream.name.lower())


class CutsLongNames(_Renaming):
    """Stores names in a column that is one character too short for the longest."""

    caught_by = checks("""
        any_allowed_name_works longest_tenant_and_name_work_and_longer_ones_are_refused
    """)

    def renamed(self, stream: StreamId) -> StreamId:
        return StreamId(stream.tenant, stream.name[:1_535])
