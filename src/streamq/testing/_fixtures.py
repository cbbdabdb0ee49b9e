"""Makes the fixtures that the tests of every driver need, for its ``conftest.py``.

A conftest assigns what these functions return to the name that tests ask for::

    stream = stream_fixture()
    open_queue = open_queue_fixture(AcmeDriver)  # on the backend of the fixture `settings`
    open_with = open_with_fixture(AcmeDriver)

Design: docs/design/testing.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from streamq.driver import AnyDriver, ChunkQueue, DriverSettings, QueueOptions, StreamId

from ._harness import LONG_TTL, OpenQueue, OpenWith, queue_factory
from .checks._records import new_stream


def stream_fixture() -> Any:
    """Return a fixture that gives each test a stream that no other test uses."""

    @pytest.fixture
    def stream() -> StreamId:
        """Return a stream that no other test uses."""
        return new_stream()

    return stream


def open_queue_fixture(driver: AnyDriver) -> Any:
    """Return a fixture that gives each test an :data:`OpenQueue`.

    Every queue leads to the backend of the fixture ``settings``, which the conftest or the test
    module defines, and is closed when the test ends.
    """

    @pytest_asyncio.fixture
    async def open_queue(settings: DriverSettings) -> AsyncIterator[OpenQueue]:
        """Return a function that opens a queue on the backend of ``settings``."""
        async with queue_factory(driver, settings) as factory:
            yield factory

    return open_queue


def open_with_fixture(
    driver: AnyDriver, settings: Callable[..., DriverSettings] | None = None
) -> Any:
    """Return a fixture that gives each test an :data:`OpenWith`.

    Every queue is closed when the test ends.

    Args:
        driver: The driver under test.
        settings: Makes settings of the arguments that a test passes; by default the only argument
            is the settings themselves.
    """

    @pytest_asyncio.fixture
    async def open_with() -> AsyncIterator[OpenWith]:
        """Return a function that opens a queue with any settings."""
        async with AsyncExitStack() as stack:

            async def opened(
                first: Any, *, ttl: timedelta = LONG_TTL, **options: Any
            ) -> ChunkQueue:
                made = first if settings is None else settings(first, **options)
                queue: ChunkQueue = await driver.open(QueueOptions(ttl=ttl), made)
                stack.push_async_callback(queue.aclose)
                return queue

            yield opened

    return open_with
