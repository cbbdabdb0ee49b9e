"""A driver over mailboxes, like SQS: a record that one reader has taken is hidden from others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from streamq.driver import (
    START,
    Capabilities,
    ChunkQueue,
    Driver,
    DriverSettings,
    Entry,
    Guard,
    LatencyClass,
    QueueOptions,
    Stored,
    StreamId,
    StreamInfo,
    foreign_position,
    not_found_error,
)
from streamq.testing import BackendHarness

_CAPABILITIES = Capabilities(
    replay=False,
    fan_out=False,
    ordered=True,
    fenced=False,
    durable=False,
    cross_process=False,
    cross_host=False,
    expires=False,
    max_record_bytes=2**18,
    latency=LatencyClass.MILLISECONDS,
)
_MOST_AT_ONCE = 10


class MailboxSettings(DriverSettings):
    """Settings of the mailbox driver."""

    model_config = SettingsConfigDict(env_prefix="STREAMQ_MAILBOX_")

    toml_table = "mailbox"

    store: str = Field(default="", description="queues with the same store share their boxes")
    hidden_seconds: float = Field(default=5.0, description="for how long a taken message is hidden")


@dataclass
class Message:
    """A message.

    Attributes:
        number: Number in the order of arrival.
        data: Its content.
        visible_at: Time from which it can be taken, by the clock of the loop.
        receipt: Number in the order in which messages were taken; used by the modest driver.
    """

    number: int
    data: bytes
    visible_at: float = 0.0
    receipt: int = 0


@dataclass
class Box:
    """One stream, first in, first out; nothing more is given while a message is taken."""

    messages: list[Message] = field(default_factory=list)
    epochs: list[int] = field(default_factory=list)
    seen: set[tuple[int, int]] = field(default_factory=set)


@dataclass
class Post:
    """All boxes of a store."""

    boxes: dict[StreamId, Box] = field(default_factory=dict)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    arrived: int = 0
    taken: int = 0


class MailboxQueue(ChunkQueue):
    """Takes messages, hides them for a while, and deletes them when they are committed."""

    backend = "mailbox"
    capabilities = _CAPABILITIES

    def __init__(self, post: Post, hidden_seconds: float) -> None:
        self.post = post
        self.hidden_seconds = hidden_seconds
        self.guard = Guard(self.backend, seconds=10)

    async def append(
        self, stream: StreamId, entries: Sequence[Entry], *, ttl: timedelta | None = None
    ) -> None:
        self.guard.check(stream)
        if not entries:
            return
        box = self.post.boxes.setdefault(stream, Box())
        for entry in entries:
            if (entry.epoch, entry.index) in box.seen:
                continue
            box.seen.add((entry.epoch, entry.index))
            if entry.index == 0:
                box.epochs.append(entry.epoch)
            self.post.arrived += 1
            box.messages.append(Message(self.post.arrived, bytes(entry.data)))
        await self.notify()

    async def notify(self) -> None:
        async with self.post.changed:
            self.post.changed.notify_all()

    async def read(
        self, stream: StreamId, after: str, *, max_records: int, max_bytes: int, max_wait: float
    ) -> Sequence[Stored]:
        self.number(stream, after)
        clock = asyncio.get_running_loop().time
        until = clock() + max_wait
        async with self.guard(stream, seconds=max_wait + 10):
            while not (found := self.take(stream, max_records, max_bytes)):
                left = until - clock()
                if left <= 0:
                    return []
                # Hidden messages become visible without an event.
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(left, 0.05)), self.post.changed:
                        await self.post.changed.wait()
            return found

    def number(self, stream: StreamId, position: str) -> int:
        if position != START and not position.isdecimal():
            raise foreign_position(self.backend, stream, position)
        return int(position or 0)

    def take(self, stream: StreamId, max_records: int, max_bytes: int) -> list[Stored]:
        now = asyncio.get_running_loop().time()
        box = self.post.boxes.get(stream, Box())
        taken: list[Stored] = []
        size = 0
        for message in box.messages[: min(max_records, _MOST_AT_ONCE)]:
            size += len(message.data)
            if message.visible_at > now or (taken and size > max_bytes):
                break
            message.visible_at = now + self.hidden_seconds
            taken.append(Stored(str(message.number), message.data))
        return taken

    async def commit(self, stream: StreamId, upto: str) -> None:
        self.guard.check(stream)
        number = self.number(stream, upto)
        if (box := self.post.boxes.get(stream)) is not None:
            box.messages = [m for m in box.messages if m.number > number]
        await self.notify()

    async def release(self, stream: StreamId, after: str) -> None:
        self.guard.check(stream)
        number = self.number(stream, after)
        for message in self.post.boxes.get(stream, Box()).messages:
            if message.number > number:
                message.visible_at = 0.0
        await self.notify()

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        self.guard.check(stream)
        box = self.post.boxes.get(stream)
        if box is None:
            raise not_found_error(self.backend, stream)
        return StreamInfo(stream, (), len(box.messages), attempts=len(set(box.epochs)))

    async def delete(self, stream: StreamId) -> None:
        self.guard.check(stream)
        self.post.boxes.pop(stream, None)

    async def streams(self, tenant: str, prefix: str = "") -> AsyncIterator[StreamInfo]:
        self.guard.check()
        for stream in list(self.post.boxes):
            if stream.tenant == tenant and stream.name.startswith(prefix):
                yield StreamInfo(stream)

    async def newest_epoch(self, stream: StreamId) -> int:
        self.guard.check(stream)
        return max(self.post.boxes.get(stream, Box()).epochs, default=0)

    async def aclose(self) -> None:
        self.guard.close()


class MailboxDriver(Driver[MailboxSettings]):
    """One mailbox for each stream."""

    name = "mailbox"
    summary = "mailboxes: one reader, which removes what it acknowledges"
    capabilities = _CAPABILITIES
    settings_type = MailboxSettings
    posts: ClassVar[dict[str, Post]] = {}

    @classmethod
    async def open(cls, options: QueueOptions, settings: MailboxSettings) -> ChunkQueue:
        """Return a queue on the named store."""
        return MailboxQueue(cls.post(settings), settings.hidden_seconds)

    @classmethod
    def post(cls, settings: MailboxSettings) -> Post:
        """Return the named store; create it if necessary."""
        return cls.posts.setdefault(settings.store, Post())


class MailboxHarness(BackendHarness):
    """Gives each check a store of its own."""

    driver = MailboxDriver

    def settings(self) -> MailboxSettings:
        """Return settings of this check's store."""
        return MailboxSettings(store=str(self.directory))

    async def stop(self) -> None:
        """Remove the store."""
        MailboxDriver.posts.pop(str(self.directory), None)
