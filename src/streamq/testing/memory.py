"""Gives tests of an application a backend in memory, as a pytest plugin.

It needs neither Temporal's SDK nor the plugin for suites of drivers. Enable it in the top
``conftest.py``::

    pytest_plugins = ["streamq.testing.memory"]

A test that asks for the fixture ``streamq_memory`` then has the memory backend as the configured
one, with streams that no other test sees::

    async def test_reader(streamq_memory: ChunkQueue) -> None:
        async with open_writer("poem") as writer:
            await writer.send_chunk("The sea")
        assert await my_application.read("poem") == "The sea"

``pytestmark = pytest.mark.usefixtures("streamq_memory")`` does so for a whole module.

Design: docs/design/testing-applications.md.
"""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from streamq._configuration_files import CONFIG_FILE_VARIABLE, DEBUG_VARIABLE, TRUST_VARIABLE
from streamq._setting_origins import PREFIX
from streamq.driver import ChunkQueue
from streamq.opening._open import open_queue

_KEPT = (CONFIG_FILE_VARIABLE, TRUST_VARIABLE, DEBUG_VARIABLE)


@pytest.fixture
def streamq_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChunkQueue]:
    """Make a fresh backend in memory the configured one for this test; return a queue of it.

    Everything that is opened by configuration leads to it, in any thread and event loop of this
    process: queues, writers and readers, workers with ``StreamqPlugin()``, the gateway. Other
    processes have no part in it.

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
    # In a thread, since a test may run in an event loop of any kind, or in none. Held open, so that
    # the streams stay while the test opens and closes queues of its own.
    with ThreadPoolExecutor(1, thread_name_prefix="streamq-memory") as executor:
        queue = executor.submit(asyncio.run, _opened()).result()
        yield queue
        executor.submit(asyncio.run, queue.aclose()).result()


async def _opened() -> ChunkQueue:
    return await open_queue()
