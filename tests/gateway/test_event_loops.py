"""An application without lifespan, each request in a loop of its own: mounted, or under test."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient

from streamq import Settings, load_settings, open_writer
from streamq.access import mint_token, new_secret
from streamq.gateway import create_app


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Return settings of a database of the test's own, with one stream."""
    monkeypatch.setenv("STREAMQ_SQLITE_PATH", str(tmp_path / "streams.db"))
    settings = load_settings(backend="sqlite")

    async def write() -> None:
        async with open_writer("s", settings=settings) as writer:
            await writer.send_chunk("a")

    asyncio.run(write())
    return settings


def assert_no_threads() -> None:
    """Fail if a thread of a queue is left; one that has just been told to end may take a moment."""
    for thread in threading.enumerate():
        if thread.name.startswith("streamq-"):
            thread.join(10)
            assert not thread.is_alive(), thread.name


def test_every_request_may_come_in_a_loop_of_its_own(settings: Settings) -> None:
    """`TestClient(app)` without `with` is what people write first; it must not fail or leak."""
    client = TestClient(Starlette(routes=[Mount("/s", create_app(settings=settings))]))
    for _ in range(3):
        for path in ("/s/readyz", "/s/streams", "/s/streams/s", "/s/streams/s/events"):
            response = client.get(path)
            assert response.status_code == 200, (path, response.text)
    assert "END" in response.text
    assert_no_threads()


def test_two_loops_at_once(settings: Settings) -> None:
    """Tests run requests in parallel threads; a server may run the application in two loops."""
    app = create_app(settings=settings)
    both_are_open = threading.Barrier(2)

    async def main() -> None:
        async with app.router.lifespan_context(app):
            both_are_open.wait(20)
            assert TestClient(app).get("/readyz").status_code == 200
            both_are_open.wait(20)

    running = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(2)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(60)
    assert_no_threads()


def test_loop_that_was_closed_without_cleaning_up(settings: Settings) -> None:
    """Not every runner finishes a loop in order; the next request works all the same."""
    app = create_app(settings=settings)
    loop = asyncio.new_event_loop()

    async def use() -> None:
        await app.state.gateways.current().open()

    loop.run_until_complete(use())
    loop.close()
    assert TestClient(app).get("/readyz").status_code == 200
    assert_no_threads()


def test_a_key_file_that_is_broken_later_breaks_no_other_loop(
    settings: Settings, tmp_path: Path
) -> None:
    """The keys before it stay valid for every loop, as they do in one."""
    key = tmp_path / "our.key"
    key.write_text(new_secret())
    guarded = settings.model_copy(update={"token_key_file": key})
    token = mint_token(stream="s", settings=guarded)
    client = TestClient(create_app(settings=guarded), base_url="http://localhost")
    headers = {"Authorization": f"Bearer {token}"}
    assert client.get("/streams/s", headers=headers).status_code == 200
    for broken in ("too short", None):
        key.unlink() if broken is None else key.write_text(broken)
        assert client.get("/streams/s", headers=headers).status_code == 200
