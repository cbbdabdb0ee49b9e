"""A driver over mailboxes, like SQS: a record that one reader has taken is hidden from others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count, takewhile
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
ALWAYS = float("-inf")
"""The time from which a message can be taken that nobody has."""


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
    visible_at: float = ALWAYS
    receipt: int | None = None


@dataclass
class Box:
    """One stream."""

    messages: list[Message] = field(default_factory=list)
    epochs: set[int] = field(default_factory=set)


@dataclass
class Post:
    """All boxes of a store."""

    boxes: dict[StreamId, Box] = field(default_factory=dict)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    numbers: Iterator[int] = field(default_factory=count)


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
            if entry.index == 0:
                box.epochs.add(entry.epoch)
            box.messages.append(Message(next(self.post.numbers), bytes(entry.data)))
        await self.notify()
        await asyncio.sleep(0)  # whoever was woken runs

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
        return int(position or -1)

    def messages(self, stream: StreamId) -> list[Message]:
        return self.post.boxes.get(stream, Box()).messages

    def take(self, stream: StreamId, max_records: int, max_bytes: int) -> list[Stored]:
        now = asyncio.get_running_loop().time()
        taken: list[Stored] = []
        room = max_bytes
        for message in self.visible(stream, now)[:max_records]:
            room -= len(message.data)
            if taken and room < 0:
                break
            message.visible_at = now + self.hidden_seconds
            taken.append(Stored(self.position(message), message.data))
        return taken

    def visible(self, stream: StreamId, now: float) -> list[Message]:
        """Return the messages that can be taken: first in, first out, none after a hidden one."""
        found = takewhile(lambda each: each.visible_at <= now, self.messages(stream))
        return list(found)[:_MOST_AT_ONCE]

    def position(self, message: Message) -> str:
        """Return the position after a message that is being taken."""
        return str(message.number)

    async def commit(self, stream: StreamId, upto: str) -> None:
        self.guard.check(stream)
        number, messages = self.number(stream, upto), self.messages(stream)
        messages[:] = [m for m in messages if m.number > number]

    async def release(self, stream: StreamId, after: str) -> None:
        self.guard.check(stream)
        number = self.number(stream, after)
        for message in self.messages(stream):
            if message.number > number:
                message.visible_at = ALWAYS

    async def describe(self, stream: StreamId, *, last: int = 0) -> StreamInfo:
        self.guard.check(stream)
        box = self.post.boxes.get(stream)
        if box is None:
            raise not_found_error(self.backend, stream)
        return StreamInfo(stream, (), len(box.messages), attempts=len(box.epochs))

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
