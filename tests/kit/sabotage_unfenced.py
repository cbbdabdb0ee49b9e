"""Sabotaged drivers over one log and over mailboxes: what backends without a fence get wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from streamq.driver import ChunkQueue, QueueOptions, Stored, StreamId, StreamInfo
from streamq.testing import DriverSuite

from .log_driver import LogDriver, LogQueue, LogSettings
from .mailbox_driver import MailboxDriver, MailboxQueue, MailboxSettings, Post
from .test_log_driver import LogHarness
from .test_mailbox_driver import MailboxHarness


class LogForgetsEpochs(LogQueue):
    """Nobody can learn that a newer attempt has begun."""

    caught_by: ClassVar[tuple[str, ...]] = ()

    async def newest_epoch(self, stream: StreamId) -> int:
        self.check_open()
        return 0


class LogReadsShort(LogQueue):
    """A read that does not wait gives one record, whatever is there."""

    caught_by: ClassVar[tuple[str, ...]] = ()

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
    """What was read is gone before anybody has acknowledged it."""

    caught_by: ClassVar[tuple[str, ...]] = ()

    def take(self, stream: StreamId, max_records: int, max_bytes: int) -> list[Stored]:
        taken = super().take(stream, max_records, max_bytes)
        if taken:
            box = self.post.boxes[stream]
            box.messages = box.messages[len(taken) :]
        return taken


class MailboxNeverDeletes(MailboxQueue):
    """What was acknowledged comes again."""

    caught_by: ClassVar[tuple[str, ...]] = ()

    async def commit(self, stream: StreamId, upto: str) -> None:
        self.check_open()


class MailboxKeepsWhatIsLeft(MailboxQueue):
    """What a reader did not deliver stays hidden, and for a minute."""

    caught_by: ClassVar[tuple[str, ...]] = ()

    def __init__(self, post: Post, hidden_seconds: float) -> None:
        super().__init__(post, 60.0)

    async def release(self, stream: StreamId, after: str) -> None:
        self.check_open()


class MailboxForgetsAttempts(MailboxQueue):
    """Nobody counts how many attempts there were."""

    caught_by: ClassVar[tuple[str, ...]] = ()

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        return StreamInfo((await super().describe(stream, last=last)).stream)


class MailboxForgetsEpochs(MailboxQueue):
    """Every attempt believes that it is the newest."""

    caught_by: ClassVar[tuple[str, ...]] = ()

    async def newest_epoch(self, stream: StreamId) -> int:
        found = await super().newest_epoch(stream)
        return min(self.post.boxes[stream].epochs) if found else 0


UNFENCED: dict[str, type[LogQueue | MailboxQueue]] = {
    queue.__name__: queue
    for queue in (
        LogForgetsEpochs,
        LogReadsShort,
        MailboxDeletesWhatItGives,
        MailboxNeverDeletes,
        MailboxKeepsWhatIsLeft,
        MailboxForgetsAttempts,
        MailboxForgetsEpochs,
    )
}
"""Every queue with a fault, by name; ``caught_by`` of each says which checks find it."""


def suite_of(queue: type[LogQueue | MailboxQueue]) -> type[DriverSuite]:
    """Return the suite that holds one of them to the contract."""
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
    members = {"harness_type": harness, "virtual_time": True, "__doc__": queue.__doc__}
    return type(name, (DriverSuite,), {**members, "__module__": __name__})
