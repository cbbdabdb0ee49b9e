"""A driver that declares no capability, so that the suite demands none."""

from __future__ import annotations

import asyncio
import random
from typing import ClassVar

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from streamq.driver import (
    Capabilities,
    ChunkQueue,
    Driver,
    DriverSettings,
    LatencyClass,
    QueueOptions,
    Stored,
    StreamId,
)
from streamq.testing import BackendHarness

from .mailbox_driver import Box, MailboxQueue, Post

_NOTHING = Capabilities(
    replay=False,
    fan_out=False,
    ordered=False,
    fenced=False,
    durable=False,
    cross_process=False,
    cross_host=False,
    expires=False,
    max_record_bytes=2**20,
    latency=LatencyClass.SECONDS,
)


class ModestSettings(DriverSettings):
    """Settings of the modest driver."""

    model_config = SettingsConfigDict(env_prefix="STREAMQ_MODEST_")

    toml_table = "modest"

    store: str = Field(default="", description="queues with the same store share their streams")


class ModestQueue(MailboxQueue):
    """Gives messages in random order to the first reader."""

    backend = "modest"
    capabilities = _NOTHING

    def __init__(self, post: Post) -> None:
        super().__init__(post, hidden_seconds=0.5)
        self.dice = random.Random(7)

    def take(self, stream: StreamId, max_records: int, max_bytes: int) -> list[Stored]:
        now = asyncio.get_running_loop().time()
        box = self.post.boxes.get(stream, Box())
        there = [message for message in box.messages if message.visible_at <= now]
        self.dice.shuffle(there)
        taken: list[Stored] = []
        size = 0
        for message in there[:max_records]:
            size += len(message.data)
            if taken and size > max_bytes:
                break
            message.visible_at = now + self.hidden_seconds
            self.post.taken += 1
            message.receipt = self.post.taken
            taken.append(Stored(str(message.receipt), message.data))
        return taken

    async def commit(self, stream: StreamId, upto: str) -> None:
        self.guard.check(stream)
        number = self.number(stream, upto)
        if (box := self.post.boxes.get(stream)) is not None:
            box.messages = [m for m in box.messages if not 0 < m.receipt <= number]
        await self.notify()

    async def release(self, stream: StreamId, after: str) -> None:
        self.guard.check(stream)
        number = self.number(stream, after)
        for message in self.post.boxes.get(stream, Box()).messages:
            if message.receipt > number:
                message.visible_at = 0.0
        await self.notify()


class ModestDriver(Driver[ModestSettings]):
    """Declares no capability."""

    name = "modest"
    summary = "declares no capability"
    capabilities = _NOTHING
    settings_type = ModestSettings
    posts: ClassVar[dict[str, Post]] = {}

    @classmethod
    async def open(cls, options: QueueOptions, settings: ModestSettings) -> ChunkQueue:
        """Return a queue on the named store."""
        return ModestQueue(cls.posts.setdefault(settings.store, Post()))


class ModestHarness(BackendHarness):
    """Supplies no hook at all."""

    driver = ModestDriver

    def settings(self) -> ModestSettings:
        """Return settings of this check's store."""
        return ModestSettings(store=str(self.directory))

    async def stop(self) -> None:
        """Remove the store."""
        ModestDriver.posts.pop(str(self.directory), None)
