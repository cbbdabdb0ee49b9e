"""Provides a stage for the tests of A2A: a worker, and replicas of agents."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest
from temporalio.client import Client

from streamq import Settings
from streamq.driver import ChunkQueue

if TYPE_CHECKING:
    from tests.temporal.a2a.replicas import Stage

if importlib.util.find_spec("a2a") is None:
    collect_ignore_glob = ["test_*.py"]  # the SDK of A2A is not installed with the oldest packages


@pytest.fixture(autouse=True)
def _gates_of_its_own() -> None:
    """Gates of other tests, which may be open, are none of this test's."""
    from tests.temporal.a2a.agents import gates

    gates.clear()


@pytest.fixture
async def stage(client: Client, queue: ChunkQueue, settings: Settings) -> AsyncIterator[Stage]:
    from tests.temporal.a2a.replicas import Stage

    stage = Stage(client, queue, settings)
    try:
        async with stage.worker():
            yield stage
    finally:
        await stage.aclose()
