"""Uses the fixtures that give an application's tests a backend in memory."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import httpx
import pytest

from streamq import Settings, load_settings, open_queue, open_reader, open_writer
from streamq.gateway import create_app
from streamq.testing import FaultyQueue

USES_IT = """
    import asyncio, os
    import pytest
    from streamq import load_settings, open_reader, open_writer

    seen = set()

    @pytest.mark.parametrize("number", [1, 2])
    def test_streams_are_fresh(streamq_memory, number):
        async def test():
            async with open_writer("poem") as writer:
                await writer.send_chunk(number)
        asyncio.run(test())
        async def read():
            async with open_reader("poem") as reader:
                return await reader.collect()
        assert asyncio.run(read()) == [number]
        assert streamq_memory.backend == "memory"
        assert "STREAMQ_TENANT" not in os.environ
        seen.add(os.environ["STREAMQ_MEMORY_STORE"])
        assert len(seen) == number

    def test_environment_is_restored():
        assert os.environ["STREAMQ_BACKEND"] == "redis"
        assert os.environ["STREAMQ_TENANT"] == "somebody"
        assert "STREAMQ_MEMORY_STORE" not in os.environ
"""


async def test_whatever_is_opened_by_configuration_leads_to_it(
    streamq_memory: Settings, streamq_queue: FaultyQueue
) -> None:
    """The application's own code opens its queues, and its test passes nothing."""
    async with open_writer("poem") as writer:
        await writer.send_chunk("the sea")
    async with open_reader("poem") as reader:
        assert await reader.collect() == ["the sea"]
    async with open_queue() as queue:
        assert [each.stream.name async for each in queue.streams("default")] == ["poem"]
    assert [each.stream.name async for each in streamq_queue.streams("default")] == ["poem"]
    assert load_settings() == streamq_memory


async def test_gateway_of_the_application_serves_it(streamq_memory: Settings) -> None:
    """A route is tested with the application's own client, without a server."""
    async with open_writer("poem") as writer:
        await writer.send_chunk("the sea")
    app = create_app()
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        answer = await client.get("/streams/poem/events")
    assert answer.status_code == 200
    assert "the sea" in answer.text


def test_other_loops_and_threads_see_it(streamq_memory: Settings) -> None:
    """An application may run a loop in a thread of its own."""

    async def write() -> None:
        async with open_writer("poem") as writer:
            await writer.send_chunk("the sea")

    async def read() -> list[object]:
        async with open_reader("poem") as reader:
            return await reader.collect()

    asyncio.run(write())
    assert asyncio.run(asyncio.wait_for(asyncio.to_thread(asyncio.run, read()), 10)) == ["the sea"]


def test_each_test_has_its_own_and_the_environment_comes_back(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tests in any order, in any shell, have the same result."""
    monkeypatch.setenv("STREAMQ_BACKEND", "redis")
    monkeypatch.setenv("STREAMQ_TENANT", "somebody")
    pytester.makeconftest('pytest_plugins = ["streamq.testing.memory"]')
    pytester.makepyfile(USES_IT)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-n0")
    result.assert_outcomes(passed=3)


def test_settings_of_the_project_stay(streamq_memory: Settings, tmp_path: Path) -> None:
    """Limits and tenant of ``streamq.toml`` are the application's, on any machine."""
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        (tmp_path / "streamq.toml").write_text('backend = "redis"\ntenant = "acme"\n')
        settings = load_settings()
    finally:
        os.chdir(before)
    assert (settings.backend, settings.tenant) == ("memory", "acme")
