"""Sabotaged drivers without a fence, over one log and over mailboxes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from itertools import count
from typing import Any, ClassVar

from tests.kit.log_driver import LogDriver, LogHarness, LogQueue, LogSettings
from tests.kit.mailbox_driver import (
    ALWAYS,
    MailboxDriver,
    MailboxHarness,
    MailboxQueue,
    MailboxSettings,
    Post,
)

from streamq.driver import ChunkQueue, Entry, QueueOptions, Stored, StreamId, StreamInfo
from streamq.testing import DriverSuite


class LogForgetsEpochs(LogQueue):
    """Does not report that a newer attempt has begun."""

    caught_by: ClassVar[tuple[str, ...]] = (
        "attempt_that_keeps_writing_during_the_takeover_is_not_blended_in",
        "stale_attempt_cannot_end_the_stream",
        "epochs_are_known_before_their_records",
        "next_attempt_is_delivered_whole_after_a_reset",
        "idle_stale_writer_is_stopped",
    )

    async def newest_epoch(self, stream: StreamId) -> int:
        self.guard.check(stream)
        return 0


class LogReadsShort(LogQueue):
    """Returns only one record from a read that does not wait."""

    caught_by: ClassVar[tuple[str, ...]] = (
        "append_after_another_connection_has_begun_anew_goes_on_there",
        "append_after_another_connection_has_deleted_begins_anew",
        "attempt_that_keeps_writing_during_the_takeover_is_not_blended_in",
        "bounds_of_a_read_hold_to_the_record_and_to_the_byte",
        "delete_and_append_at_the_same_time_leave_a_sound_stream",
        "epochs_and_indexes_are_compared_as_numbers",
        "joining_at_the_tail_after_the_end_gives_the_ending",
        "joining_at_the_tail_gives_exactly_what_comes_after",
        "live_tail_misses_nothing_after_it",
        "next_attempt_is_delivered_whole_after_a_reset",
        "offsets_are_dense_and_equal_through_many_takeovers",
        "opening_a_writer_can_be_cancelled_at_any_await",
        "position_is_valid_in_another_connection",
        "read_at_once_leaves_out_nothing_that_is_stored",
        "read_can_be_cancelled_at_any_await",
        "read_goes_on_after_every_position",
        "read_returns_more_bytes_than_a_page_of_the_server",
        "read_returns_more_than_a_page_of_the_server",
        "read_within_which_a_stream_begins_again_mixes_nothing_up",
        "reads_of_one_connection_do_not_disturb_each_other",
        "replay_that_differs_is_refused_and_changes_nothing",
        "replaying_attempt_sends_everything_again_and_is_delivered_once",
        "resuming_attempt_goes_on_after_the_last_durable_chunk",
        "second_seal_changes_nothing",
        "status_reports_offset_attempt_and_seal",
        "what_another_connection_has_deleted_is_gone_for_every_call",
    )

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        return await super().read(
            stream,
            after,
            max_records=max_records if max_wait else 1,
            max_bytes=max_bytes,
            max_wait=max_wait,
        )


class MailboxDeletesWhatItGives(MailboxQueue):
    """Removes records when they are read, before they are acknowledged."""

    caught_by: ClassVar[tuple[str, ...]] = (
        "cursor_goes_on_within_a_later_attempt",
        "cursor_of_a_stream_that_began_again_is_refused",
        "poll_that_died_before_its_result_was_stored_is_repeated",
        "records_given_back_from_the_start_come_at_once_and_in_order",
        "released_records_go_to_the_next_reader_at_once",
        "rest_of_a_packed_record_goes_to_the_next_reader_at_once",
        "taken_record_is_hidden_and_comes_again_if_its_reader_dies",
    )

    def take(self, stream: StreamId, max_records: int, max_bytes: int) -> list[Stored]:
        taken = super().take(stream, max_records, max_bytes)
        if taken:
            box = self.post.boxes[stream]
            box.messages = box.messages[len(taken) :]
        return taken


class MailboxNeverDeletes(MailboxQueue):
    """Returns acknowledged records again."""

    caught_by: ClassVar[tuple[str, ...]] = (
        "acknowledgement_through_another_connection_counts",
        "append_wakes_a_blocked_read",
        "append_wakes_a_read_in_another_connection",
        "committed_record_never_comes_again",
        "interleaved_writers_of_many_streams",
        "latency_is_of_the_declared_class",
        "many_entries_in_one_append",
        "max_bytes_is_obeyed",
        "max_records_is_obeyed",
        "order_holds_across_appends",
        "poll_that_died_before_its_result_was_stored_is_repeated",
        "polls_of_different_workers_hand_the_stream_over",
        "records_given_back_from_the_start_come_at_once_and_in_order",
        "released_records_go_to_the_next_reader_at_once",
        "stream_reaches_its_reader_once_and_in_order",
        "waits_are_exact",
    )

    async def commit(self, stream: StreamId, upto: str) -> None:
        self.guard.check(stream)


class MailboxKeepsWhatIsLeft(MailboxQueue):
    """Hides records that a reader did not deliver for a minute."""

    caught_by: ClassVar[tuple[str, ...]] = (
        "cursor_of_a_stream_that_began_again_is_refused",
        "records_given_back_from_the_start_come_at_once_and_in_order",
        "rest_of_a_packed_record_goes_to_the_next_reader_at_once",
    )

    def __init__(self, post: Post, hidden_seconds: float) -> None:
        super().__init__(post, 60.0)

    async def release(self, stream: StreamId, after: str) -> None:
        self.guard.check(stream)


class MailboxNumbersAnew(MailboxQueue):
    """Applies acknowledgements of a deleted stream to its successor of the same name."""

    caught_by: ClassVar[tuple[str, ...]] = ("cursor_of_a_stream_that_began_again_is_refused",)

    async def delete(self, stream: StreamId) -> None:
        await super().delete(stream)
        self.post.numbers = count()


class MailboxForgetsAttempts(MailboxQueue):
    """Does not count attempts."""

    caught_by: ClassVar[tuple[str, ...]] = ("next_attempt_starts_over_and_its_reader_counts",)

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        return StreamInfo((await super().describe(stream, last=last)).stream)


class MailboxKnowsItsOwnEpochs(MailboxQueue):
    """Does not know epochs of other connections, so that every attempt is the newest."""

    caught_by: ClassVar[tuple[str, ...]] = (
        "cursor_goes_on_within_a_later_attempt",
        "stale_attempt_cannot_end_the_stream",
        "epochs_are_known_before_their_records",
        "next_attempt_starts_over_and_its_reader_counts",
        "older_and_equal_epochs_are_refused",
        "idle_stale_writer_is_stopped",
    )

    def __init__(self, post: Post, hidden_seconds: float) -> None:
        super().__init__(post, hidden_seconds)
        self.opened: dict[StreamId, int] = {}

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        await super().append(stream, entries, ttl=ttl)
        for entry in entries:
            self.opened[stream] = max(self.opened.get(stream, 0), entry.epoch)

    async def newest_epoch(self, stream: StreamId) -> int:
        self.guard.check(stream)
        return self.opened.get(stream, 0)


class MailboxHidesNothing(MailboxQueue):
    """Gives a record to every reader that asks before it is committed."""

    caught_by: ClassVar[tuple[str, ...]] = (
        "released_records_go_to_the_next_reader_at_once",
        "taken_record_is_hidden_and_comes_again_if_its_reader_dies",
    )

    def take(self, stream: StreamId, max_records: int, max_bytes: int) -> list[Stored]:
        taken = super().take(stream, max_records, max_bytes)
        for message in self.post.boxes[stream].messages if taken else ():
            message.visible_at = ALWAYS
        return taken


class MailboxSkipsARepeatWhole(MailboxQueue):
    """Takes an append whose first record is stored for one that is stored whole."""

    caught_by: ClassVar[tuple[str, ...]] = ("repeat_without_a_fence_loses_nothing",)

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        added = [(entry.epoch, entry.index) for entry in entries]
        if not added or added[0] not in getattr(self.post.boxes.get(stream), "seen", ()):
            await super().append(stream, entries, ttl=ttl)
        for each in added:
            vars(self.post.boxes[stream]).setdefault("seen", set()).add(each)


UNFENCED: dict[str, Any] = {
    queue.__name__: queue
    for queue in (
        LogForgetsEpochs,
        LogReadsShort,
        MailboxDeletesWhatItGives,
        MailboxNeverDeletes,
        MailboxKeepsWhatIsLeft,
        MailboxNumbersAnew,
        MailboxForgetsAttempts,
        MailboxKnowsItsOwnEpochs,
        MailboxHidesNothing,
        MailboxSkipsARepeatWhole,
    )
}
"""Every queue with a fault, by name; ``caught_by`` names the checks that catch it."""


def suite_of(queue: type[LogQueue | MailboxQueue]) -> type[DriverSuite]:
    """Return the suite for one of these queues."""
    if issubclass(queue, LogQueue):
        log = queue

        class OpensLogs(LogDriver):
            @classmethod
            async def open(cls, options: QueueOptions, settings: LogSettings) -> ChunkQueue:
                return log(LogDriver.log(settings))

        class LogSuiteHarness(LogHarness):
            driver = OpensLogs
            patience_seconds = 5.0

        harness: type[LogHarness | MailboxHarness] = LogSuiteHarness
    else:
        mailbox = queue

        class OpensMailboxes(MailboxDriver):
            @classmethod
            async def open(cls, options: QueueOptions, settings: MailboxSettings) -> ChunkQueue:
                return mailbox(MailboxDriver.post(settings), settings.hidden_seconds)

        class MailboxSuiteHarness(MailboxHarness):
            driver = OpensMailboxes
            patience_seconds = 10.0

        harness = MailboxSuiteHarness
    name = f"Test{queue.__name__}"
    members = {
        "harness_type": harness,
        "virtual_time": True,
        "subscribers": 20,
        "__doc__": queue.__doc__,
    }
    return type(name, (DriverSuite,), {**members, "__module__": __name__})
