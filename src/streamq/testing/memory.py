"""Gives tests of an application a backend in memory, as a pytest plugin.

It needs neither Temporal's SDK nor the plugin for suites of drivers. Enable it in the top
``conftest.py``::

    pytest_plugins = ["streamq.testing.memory"]

With the fixture ``streamq_memory`` the memory backend is the configured one, with streams that no
other test sees; ``pytestmark = pytest.mark.usefixtures("streamq_memory")`` does so for a module.
The fixture ``streamq_queue`` is an open queue of it, whose faults a test can script::

    async def test_reader(streamq_queue: FaultyQueue) -> None:
        async with open_writer("poem") as writer:
            await writer.send_chunk("The sea")
        streamq_queue.script("read", Fail())
        assert await my_application.read("poem", queue=streamq_queue) == "The sea"

Design: docs/design/testing-applications.md.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import pytest_asyncio

from streamq._configuration_files import CONFIG_FILE_VARIABLE, DEBUG_VARIABLE, TRUST_VARIABLE
from streamq._setting_origins import PREFIX
from streamq._settings import Settings, load_settings
from streamq.driver import ChunkQueue
from streamq.opening._open import open_queue

from ._faulty_queue import FaultyQueue

_KEPT = (CONFIG_FILE_VARIABLE, TRUST_VARIABLE, DEBUG_VARIABLE)


@pytest.fixture
def streamq_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Make a fresh backend in memory the configured one for this test; return the settings.

    Everything that is opened by configuration leads to it, in any thread and event loop of this
    process: queues, writers and readers, workers with ``StreamqPlugin()``, the gateway. Other
    processes have no part in it. Its streams stay until the test ends.

    Variables that begin with ``STREAMQ_`` are taken out of the environment until the test ends, so
    that the shell of whoever runs it changes nothing; a test sets what it needs with
    ``monkeypatch.setenv``. ``streamq.toml`` and ``.env`` of the working directory still give the
    settings that have nothing to do with the backend.
    """
    for name in [each for each in os.environ if each.upper().startswith(PREFIX)]:
        if name.upper() not in _KEPT:
            monkeypatch.delenv(name)
    monkeypatch.setenv("STREAMQ_BACKEND", "memory")
    monkeypatch.setenv("STREAMQ_MEMORY_STORE", f"test-{uuid.uuid4().hex}")
    # The store lives as long as a queue of it is open. In a thread of its own, since a test may run
    # in an event loop of any kind, or in none.
    with ThreadPoolExecutor(1, thread_name_prefix="streamq-memory") as executor:
        queue = executor.submit(asyncio.run, _opened()).result()
        yield load_settings()
        executor.submit(asyncio.run, queue.aclose()).result()


async def _opened() -> ChunkQueue:
    return await open_queue()


@pytest_asyncio.fixture
async def streamq_queue(streamq_memory: Settings) -> AsyncIterator[FaultyQueue]:
    """Open a queue on the backend of ``streamq_memory``, in the test's event loop."""
    async with open_queue(streamq_memory) as queue:
        yield FaultyQueue(queue)
