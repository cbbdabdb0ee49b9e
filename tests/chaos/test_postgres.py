"""The servers that change roles: a fail-over leaves one primary, with all that it acknowledged."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ._postgres import PostgresPair


@pytest.fixture
async def pair() -> AsyncIterator[PostgresPair]:
    """A primary and a standby that is in step."""
    with tempfile.TemporaryDirectory(prefix="streamq-test-chaos-") as directory:
        pair = PostgresPair(Path(directory))
        try:
            await pair.start()
            yield pair
        finally:
            pair.stop()


async def test_the_standby_has_what_was_acknowledged(pair: PostgresPair) -> None:
    """A run with a standby that lags behind would blame streamq for what nobody can bring back."""
    await pair.ask("CREATE TABLE kept (value int)")
    first = pair.port
    async with asyncio.timeout(60):
        while not await pair.is_in_step():  # noqa: ASYNC110 - the server says so when asked
            await asyncio.sleep(0.05)
    for value in range(20):
        await pair.ask(f"INSERT INTO kept VALUES ({value})")
    assert await pair.fail_over()
    assert pair.port != first
    assert not await pair.fail_over()  # there is no other standby yet
    assert await pair.ask("SELECT count(*), pg_is_in_recovery() FROM kept") == [(20, False)]
