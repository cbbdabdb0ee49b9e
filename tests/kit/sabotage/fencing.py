"""Sabotaged drivers that let the wrong attempt write, or refuse the right one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from streamq.driver import Entry, FencedError, StreamId

from .server import SoundQueue, checks


class AcceptsStaleAttempt(SoundQueue):
    """Stores every append, as if it came from the newest attempt."""

    caught_by = checks("""
        appends_of_two_connections_are_one_sequence
        attempt_that_keeps_writing_during_the_takeover_is_not_blended_in
        descriptions_and_listings_count_what_is_stored next_attempt_is_delivered_whole_after_a_reset
        older_epoch_is_fenced_even_if_it_never_wrote refused_append_shortens_nothing
        stale_attempt_cannot_end_the_stream stale_epoch_is_fenced
        stale_epoch_is_fenced_in_another_connection
        takeover_leaves_nothing_of_the_old_epoch_behind_it takeover_within_an_append_is_clean
    """)

    def altered(self, stream: StreamId, entries: list[Entry]) -> list[Entry]:
        epoch, index = self.server.newest(stream)
        shift = self.server.notes.setdefault((stream, epoch), 0)
        assert isinstance(shift, int)
        found = []
        for entry in entries:
            if entry.epoch < epoch:
                index, shift = index + 1, shift + 1
                self.server.notes[stream, epoch] = shift
                found.append(Entry(epoch, index, entry.data))
            elif entry.epoch == epoch:
                index = max(index, entry.index + shift)
                found.append(Entry(epoch, entry.index + shift, entry.data))
            else:
                epoch, index, shift = entry.epoch, entry.index, 0
                found.append(entry)
        return found


class AcceptsOlderAttemptThatNeverWrote(AcceptsStaleAttempt):
    """Fences attempts that have written before; accepts a late first append of an old attempt."""

    caught_by = checks("""
        descriptions_and_listings_count_what_is_stored
        older_epoch_is_fenced_even_if_it_never_wrote takeover_within_an_append_is_clean
    """)

    def altered(self, stream: StreamId, entries: list[Entry]) -> list[Entry]:
        known = self.server.notes.setdefault(stream, set())
        assert isinstance(known, set)
        epochs = {entry.epoch for entry in entries}
        if epochs & known:
            return entries
        known |= epochs
        return super().altered(stream, entries)


class FencesInTheConnectionOnly(AcceptsStaleAttempt):
    """Knows only newer attempts that write over the same connection."""

    caught_by = checks("""
        appends_of_two_connections_are_one_sequence
        attempt_that_keeps_writing_during_the_takeover_is_not_blended_in
        next_attempt_is_delivered_whole_after_a_reset
        refused_append_shortens_nothing
        stale_attempt_cannot_end_the_stream stale_epoch_is_fenced_in_another_connection
        takeover_leaves_nothing_of_the_old_epoch_behind_it takeover_within_an_append_is_clean
    """)

    def altered(self, stream: StreamId, entries: list[Entry]) -> list[Entry]:
        newest = self.server.notes.get((self, stream), 0)
        assert isinstance(newest, int)
        self.server.notes[self, stream] = max([newest, *(entry.epoch for entry in entries)])
        if any(entry.epoch < newest for entry in entries):
            return entries
        return super().altered(stream, entries)


class FencesBeforeItStores(AcceptsStaleAttempt):
    """Checks for a newer attempt and stores in two steps."""

    caught_by = checks("""
        attempt_that_keeps_writing_during_the_takeover_is_not_blended_in
        takeover_leaves_nothing_of_the_old_epoch_behind_it takeover_within_an_append_is_clean
    """)

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        if entries and entries[0].epoch < self.server.newest(stream)[0]:
            raise FencedError("an older one", backend=self.backend, stream=str(stream))
        await super().append(stream, entries, ttl=ttl)


class FencesItsOwnAttempt(SoundQueue):
    """Treats the same attempt on another connection as another attempt."""

    caught_by = checks("""
        append_after_another_connection_has_begun_anew_goes_on_there
        appends_of_two_connections_are_one_sequence
        bounds_of_a_read_hold_to_the_record_and_to_the_byte
        describe_reflects_every_append_that_returned
        description_within_which_a_stream_changes_is_of_one_moment
        descriptions_and_listings_count_what_is_stored
        full_backend_is_reported_keeps_its_records_and_recovers
        last_append_sets_the_ttl_whichever_connection_makes_it
        read_that_is_blocked_when_its_connection_drops_fails_or_continues
        repeat_through_another_connection_is_skipped repeat_within_the_append_adds_nothing
        repeat_without_a_ttl_sets_the_usual_one two_appends_of_one_epoch_keep_the_order_of_indexes
    """)

    def altered(self, stream: StreamId, entries: list[Entry]) -> list[Entry]:
        for entry in entries:
            owner = self.server.notes.setdefault((stream, entry.epoch), self)
            if owner is not self:
                raise FencedError("another attempt", backend=self.backend, stream=str(stream))
        return entries


class ComparesEpochsAsText(SoundQueue):
    """Compares epochs as text, in which 10 comes before 9."""

    caught_by = checks("""
        epochs_and_indexes_are_compared_as_numbers
        opening_a_writer_can_be_cancelled_at_any_await
    """)

    def altered(self, stream: StreamId, entries: list[Entry]) -> list[Entry]:
        epoch, _ = self.server.newest(stream)
        if epoch and any(str(entry.epoch) < str(epoch) for entry in entries):
            raise FencedError("an older one", backend=self.backend, stream=str(stream))
        return entries
