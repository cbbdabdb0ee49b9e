"""Fixtures for tests of readers through a gateway."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from tests.gateway.served import WatchedQueue

from streamq import Settings
from streamq.driver import QueueOptions
from streamq.gateway import GatewayOptions, create_app, serve
from streamq.memory import MemoryDriver, MemorySettings

from .serving import SETTINGS, Serving


@pytest.fixture
async def queue() -> AsyncIterator[WatchedQueue]:
    """The backend of the gateway."""
    options = QueueOptions(ttl=timedelta(minutes=5))
    inner = await MemoryDriver.open(options, MemorySettings(store=uuid.uuid4().hex))
    async with WatchedQueue(inner) as watched:
        yield watched


@pytest.fixture
def serving(queue: WatchedQueue) -> Serving:
    """Serves the backend by gateways with some settings."""

    def start(settings: Settings = SETTINGS, **options: Any) -> Any:
        return serve(create_app(queue, settings, options=GatewayOptions(**options)))

    return start
