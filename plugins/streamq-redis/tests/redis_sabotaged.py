"""Puts faults that once passed the kit into the Redis driver; ``test_redis_sabotaged.py`` runs it.

The server expires streams by itself, and wakes readers after storing: those faults do not fit here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.kit.sabotage.own_drivers import remember_the_newest_entry

from streamq.driver import Stored
from streamq.testing import DriverSuite
from streamq_redis import _reading
from streamq_redis._queue import RedisQueue
from streamq_redis.embedded import EmbeddedRedis
from streamq_redis.requests._commands import newest_entries
from test_redis_conformance import RedisHarness, suite_server

__all__ = ["suite_server"]

_PAGE = 512


def _remembers(patch: pytest.MonkeyPatch) -> None:
    remember_the_newest_entry(patch, RedisQueue)


def _stops_at_a_page(patch: pytest.MonkeyPatch) -> None:
    read = _reading.RecordReader.read

    async def page(self: Any, key: bytes, start: Any, most: int, room: int) -> list[Stored]:
        return await read(self, key, start, min(most, _PAGE), room)

    patch.setattr(_reading.RecordReader, "read", page)


def _describes_a_page(patch: pytest.MonkeyPatch) -> None:
    newest = newest_entries
    patch.setattr(_reading, "newest_entries", lambda key, last: newest(key, min(last, 50)))


SABOTAGED: dict[str, tuple[Callable[[pytest.MonkeyPatch], None], str]] = {
    "RemembersTheNewestEntry": (
        _remembers,
        "append_after_another_connection_has_deleted_begins_anew",
    ),
    "StopsAtAPage": (_stops_at_a_page, "read_returns_more_than_a_page_of_the_server"),
    "DescribesAPage": (
        _describes_a_page,
        "describe_and_delete_go_beyond_a_page_of_the_server",
    ),
}
"""For each fault: what puts it there, and the check that catches it."""


def suite_of(name: str, sabotage: Callable[[pytest.MonkeyPatch], None]) -> type[DriverSuite]:
    """Return the suite for one of them."""

    class Suite(DriverSuite):
        @pytest.fixture
        def harness(
            self,
            tmp_path: Path,
            binary: Path,
            suite_server: EmbeddedRedis,
            monkeypatch: pytest.MonkeyPatch,
        ) -> RedisHarness:
            sabotage(monkeypatch)
            return RedisHarness(tmp_path, suite_server, f"redis ({binary.stem})")

    Suite.__name__ = Suite.__qualname__ = f"Test{name}"
    return Suite


for _name, (_sabotage, _) in SABOTAGED.items():
    globals()[f"Test{_name}"] = suite_of(_name, _sabotage)
