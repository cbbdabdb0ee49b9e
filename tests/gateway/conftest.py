"""Fixtures for tests of the gateway."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from streamq import Settings, load_settings
from streamq.driver import QueueOptions
from streamq.memory import MemoryDriver, MemorySettings

from .browsers import Browser, running_browser
from .served import Serve, WatchedQueue


@pytest.fixture
def settings() -> Settings:
    return load_settings(backend="memory", retry_seconds=0.05)


@pytest.fixture
async def queue() -> AsyncIterator[WatchedQueue]:
    options = QueueOptions(ttl=timedelta(minutes=5))
    inner = await MemoryDriver.open(options, MemorySettings(store=uuid.uuid4().hex))
    async with WatchedQueue(inner) as watched:
        yield watched


@pytest.fixture
async def start(queue: WatchedQueue, settings: Settings) -> AsyncIterator[Serve]:
    async with AsyncExitStack() as stack:
        yield Serve(stack, queue, settings)


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    async with running_browser(tmp_path) as running:
        yield running
