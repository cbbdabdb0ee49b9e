"""A driver that declares no capability, so that the suite demands none."""

from __future__ import annotations

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
    StreamId,
)
from streamq.testing import BackendHarness

from .mailbox_driver import ALWAYS, MailboxQueue, Message, Post

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
        self.dice = random.Random("post")

    def visible(self, stream: StreamId, now: float) -> list[Message]:
        there = [message for message in self.messages(stream) if message.visible_at <= now]
        return self.dice.sample(there, len(there))

    def position(self, message: Message) -> str:
        message.receipt = next(self.post.numbers)
        return str(message.receipt)

    async def commit(self, stream: StreamId, upto: str) -> None:
        self.guard.check(stream)
        number, messages = self.number(stream, upto), self.messages(stream)
        messages[:] = [m for m in messages if m.receipt is None or m.receipt > number]

    async def release(self, stream: StreamId, after: str) -> None:
        self.guard.check(stream)
        number = self.number(stream, after)
        for message in self.messages(stream):
            if message.receipt is not None and message.receipt > number:
                # Without its receipt: the next commit of another reader is not for it.
                message.visible_at, message.receipt = ALWAYS, None


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
