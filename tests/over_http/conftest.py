"""Fixtures for tests of readers through a gateway."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from tests.gateway.served import WatchedQueue

from streamq.driver import QueueOptions
from streamq.memory import MemoryDriver, MemorySettings


@pytest.fixture
async def queue() -> AsyncIterator[WatchedQueue]:
    """The backend of the gateway."""
    options = QueueOptions(ttl=timedelta(minutes=5))
    inner = await MemoryDriver.open(options, MemorySettings(store=uuid.uuid4().hex))
    async with WatchedQueue(inner) as watched:
        yield watched
