"""The servers that change roles: a fail-over leaves one primary, whatever came between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from . import _redis
from ._redis import RedisPair


async def role(pair: RedisPair) -> Any:
    """Return what the server that is taken for the primary says that it is."""
    async with redis.asyncio.Redis.from_url(pair.primary.url, decode_responses=True) as client:
        return (await client.info("replication"))["role"]


async def test_the_primary_is_known_after_every_fail_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose links lead to a replica for good would blame streamq for what it cannot write."""
    pair = RedisPair(tmp_path)
    try:
        await pair.start()
        first = pair.primary
        assert await pair.fail_over()
        assert pair.primary is not first
        assert await role(pair) == "master"
        monkeypatch.setattr(_redis, "_READY_SECONDS", 0.0)  # a machine that is too slow
        assert not await pair.fail_over()
        assert await role(pair) == "master"
    finally:
        pair.stop()
