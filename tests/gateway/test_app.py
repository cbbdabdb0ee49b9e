"""The routes around the streams: status, list, health, errors, the page, and mounting."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from httpx_sse import aconnect_sse
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Mount

import streamq.gateway
from streamq import (
    AccessDeniedError,
    BackendUnavailableError,
    ClosedError,
    ConfigurationError,
    Settings,
    StreamqError,
    load_settings,
    open_queue,
    open_writer,
)
from streamq.driver import ChunkQueue, QueueOptions
from streamq.gateway import Gateway, GatewayOptions, create_app, serve
from streamq.gateway._page import page_routes
from streamq.memory import MemoryDriver, MemorySettings

from .served import Serve, WatchedQueue


def test_the_public_names_are_exactly_these() -> None:
    """A name that is importable by accident would have to be kept for ever."""
    public = {name for name in vars(streamq.gateway) if not name.startswith("_")}
    assert public == set(streamq.gateway.__all__)


async def test_the_status_of_an_open_stream(start: Serve, queue: WatchedQueue) -> None:
    """A script can query the status of a stream without reading it."""
    served = await start()
    async with open_writer("a/b c", queue=queue) as writer:
        await writer.send_chunk("x")
        await writer.flush()
        response = await served.get("/streams/a/b%20c")
    assert response.headers["cache-control"] == "no-store"
    status = response.json()
    assert 0 < status.pop("expires_in_seconds") <= 300
    assert status.pop("size_bytes") > 0
    assert status == {
        "tenant": "default",
        "name": "a/b c",
        "attempt": 1,
        "offset": 1,
        "state": "OPEN",
        "seal": None,
        "records": 2,
        "actions": ["read", "describe"],
        "execution": None,
        "temporal_url": None,
        "takes_tokens": False,
        "token": None,
    }


async def test_the_status_of_an_ended_stream_has_its_ending(
    start: Serve, queue: WatchedQueue
) -> None:
    """The reason of a failure stays visible until the stream expires."""
    writer = await open_writer("s", queue=queue)
    await writer.fail("too bad", retryable=True)
    await writer.aclose()
    served = await start()
    status = (await served.get("/streams/s")).json()
    assert status["state"] == "ERROR"
    assert status["seal"]["message"] == "too bad"
    assert status["seal"]["retryable"] is True


async def test_unknown_things_are_problems_in_json(start: Serve) -> None:
    """A client that parses errors must not get HTML."""
    served = await start()
    for path, status, code in (
        ("/streams/nobody", 404, "stream_not_found"),
        ("/nothing", 404, "not_found"),
        ("/streams/bad%FFname", 400, "bad_request"),
        ("/streams//events", 400, "bad_request"),
        ("/streams/" + "x" * 1537 + "/events", 400, "bad_request"),
        ("/streams?limit=many", 400, "bad_request"),
        ("/streams?limit=1001", 400, "bad_request"),
    ):
        response = await served.get(path)
        assert (response.status_code, response.json()["error"]) == (status, code), path
        assert response.json()["message"]
    response = await served.client.post("/streams")
    assert (response.status_code, response.json()["error"]) == (405, "method_not_allowed")


async def test_every_name_has_an_address(
    queue: WatchedQueue, settings: Settings, start: Serve
) -> None:
    """Names come from workflow ids, and every stream can be read by HTTP."""
    served = await start()
    for name in (
        *("a\nb\n", "\0", "a\0b", "\u3000", "\x1b[31m", "\u202ea", "\u0378", "🌊", "%2F", "?a=b#c"),
        *(" a ", "../a", "a/../b", "a//b", "/a", "a/", ".a", "n" * 1536, "é" * 768, "events"),
        *("a/events", "/events", "a/events\n"),
    ):
        async with open_writer(name, queue=queue, settings=settings) as writer:
            await writer.send_chunk("x")
        address = quote(name, safe="")
        assert (await served.get(f"/streams/{address}")).json()["name"] == name
        assert await served.values(address) == ["x"]
        listed = await served.get(f"/streams?prefix={address}")
        assert name in [each["name"] for each in listed.json()["streams"]]


async def test_the_list_is_bounded_and_starts_with_the_most_recent_streams(
    start: Serve, queue: WatchedQueue
) -> None:
    """The page offers current streams, however many streams exist."""
    for name in ("a/1", "b/1", "a/2", "a/3"):
        async with open_writer(name, queue=queue) as writer:
            await writer.send_chunk("x")
    served = await start()
    listed = (await served.get("/streams")).json()
    assert [stream["name"] for stream in listed["streams"]] == ["a/3", "a/2", "b/1", "a/1"]
    assert listed["is_complete"] is True
    listed = (await served.get("/streams?prefix=a/&limit=2")).json()
    assert [stream["name"] for stream in listed["streams"]] == ["a/3", "a/2"]
    assert listed["is_complete"] is False


async def test_a_backend_that_is_down_is_reported_without_secrets(
    start: Serve, queue: WatchedQueue
) -> None:
    """Clients learn when to retry; addresses and tracebacks stay in the log."""
    served = await start(retry_seconds=1.2)
    errors: list[tuple[StreamqError, int, str | None]] = [
        (BackendUnavailableError("cannot reach secret-host"), 503, "2"),
        (AccessDeniedError("user secret-user may not"), 502, None),
    ]
    for error, status, retry_after in errors:
        queue.take_down(error)
        for path in ("/streams/s/events?wait=5", "/streams/s", "/streams", "/readyz"):
            response = await served.get(path)
            assert (response.status_code, response.json()["error"]) == (status, error.code)
            assert response.headers.get("retry-after") == retry_after
            assert "secret" not in response.text
        assert (await served.get("/healthz")).status_code == 200
    queue.bring_up()
    assert (await served.get("/readyz")).json() == {"status": "ok", "backend": "memory"}


async def test_health_reports_streams_and_connections(start: Serve, queue: WatchedQueue) -> None:
    """Operators see the number of streams and connections of a process."""
    served = await start()
    async with served.events("s", "wait=5"):
        health = (await served.get("/healthz")).json()
    assert health == {"status": "ok", "streams": 1, "connections": 1}


async def test_the_page_needs_no_external_resources(start: Serve) -> None:
    """It works offline, under any prefix, and under a strict content security policy."""
    served = await start()
    page = await served.get("/?stream=x")
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    links = re.findall(r'(?:src|href)="([^"]*)"', page.text)
    assert links == ["data:,", "page.css", "page/values.css", "page/main.js"]
    for link in links[1:]:
        assert (await served.get("/" + link)).status_code == 200
    modules = [each.path for each in page_routes() if each.path.startswith("/page/")]
    assert len(modules) > 10
    for path in modules:
        script = (await served.get(path)).text
        assert not re.search(r"innerHTML|insertAdjacent|document\.write|eval\(|https?://", script)
        assert not re.search(r"""from "(?!\.\.?/)""", script), path  # relative, for a mount
    assert not re.search(r"style=|<script>|\son\w+=", page.text)


async def test_mounted_under_a_prefix(queue: WatchedQueue, settings: Settings) -> None:
    """The gateway can be part of a FastAPI or Starlette application."""
    parent = Starlette(routes=[Mount("/live/view", app=create_app(queue, settings))])
    async with open_writer("s", queue=queue) as writer:
        await writer.send_chunk("x")
    async with serve(parent) as server, httpx.AsyncClient(base_url=server.url) as client:
        assert 'href="page.css"' in (await client.get("/live/view/")).text
        moved = await client.get("/live/view")  # otherwise the page's links would lack the prefix
        assert moved.headers["location"].endswith("/live/view/")
        assert (await client.get("/live/view/page/main.js")).status_code == 200
        assert (await client.get("/live/view/streams/s")).json()["state"] == "END"
        assert b"event: end" in (await client.get("/live/view/streams/s/events")).content


async def test_events_pass_a_compressing_middleware_at_once(
    queue: WatchedQueue, settings: Settings
) -> None:
    """Starlette's GZipMiddleware before 0.46 keeps events back until the stream has ended."""
    app = create_app(queue, settings)
    app.add_middleware(GZipMiddleware)
    async with (
        open_writer("s", queue=queue) as writer,
        serve(app) as server,
        httpx.AsyncClient(base_url=server.url) as client,
    ):
        await writer.send_chunk("x")
        await writer.flush()
        async with aconnect_sse(client, "GET", "/streams/s/events") as source, asyncio.timeout(20):
            async for event in source.aiter_sse():
                if event.event == "chunk":
                    break
            assert event.json()["value"] == "x"


@pytest.fixture
def sqlite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("STREAMQ_SQLITE_PATH", str(tmp_path / "streams.db"))
    return load_settings(backend="sqlite")


async def test_the_configured_queue_is_opened_and_closed_by_the_lifespan(
    sqlite: Settings,
) -> None:
    """By itself, the gateway needs only its configuration, even across processes."""
    app = create_app(settings=sqlite)
    async with serve(app) as server, httpx.AsyncClient(base_url=server.url) as client:
        async with open_writer("s", settings=sqlite, epoch=5) as writer:
            await writer.send_chunk("x")
        assert (await client.get("/readyz")).json()["backend"] == "sqlite"
        raw = (await client.get("/streams/s/events")).content
        ids = [line for line in raw.split(b"\n") if line.startswith(b"id")]
        assert ids == [b"id: 1@5", b"id: 2@5"]


async def test_a_mounted_gateway_opens_its_queue_on_first_use(sqlite: Settings) -> None:
    """Parents do not run the lifespan of mounted applications, so opening must not depend on it."""
    app = create_app(settings=sqlite)
    gateway: Gateway = app.state.gateway

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        await gateway.aclose()
        await gateway.aclose()

    parent = Starlette(routes=[Mount("/live", app=app)], lifespan=lifespan)
    async with serve(parent) as server, httpx.AsyncClient(base_url=server.url) as client:
        assert (await client.get("/live/readyz")).status_code == 200


async def test_a_queue_that_is_being_opened_is_closed_with_the_gateway(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow connect during shutdown must not leave an open connection."""
    entered, proceed = asyncio.Event(), asyncio.Event()
    opened: list[ChunkQueue] = []
    closed: list[ChunkQueue] = []
    open_memory = MemoryDriver.open

    async def open_slowly(options: QueueOptions, settings: MemorySettings) -> ChunkQueue:
        entered.set()
        await proceed.wait()
        queue = await open_memory(options, settings)
        close = queue.aclose

        async def aclose() -> None:
            closed.append(queue)
            await close()

        monkeypatch.setattr(queue, "aclose", aclose)
        opened.append(queue)
        return queue

    monkeypatch.setattr(MemoryDriver, "open", open_slowly)
    gateway: Gateway = create_app(settings=settings).state.gateway
    opening = [asyncio.create_task(gateway.open()) for _ in range(2)]
    await entered.wait()
    closing = asyncio.create_task(gateway.aclose())
    await asyncio.sleep(0)  # it has begun
    proceed.set()
    await closing
    for outcome in await asyncio.gather(*opening, return_exceptions=True):
        assert isinstance(outcome, ClosedError)
    assert len(opened) == 1
    assert closed == opened
    await gateway.open()  # it can be used again
    await gateway.aclose()
    assert len(opened) == 2
    assert closed == opened


async def test_a_given_queue_stays_open(queue: WatchedQueue, settings: Settings) -> None:
    """The gateway closes only queues that it has opened."""
    async with serve(create_app(queue, settings)):
        pass
    async with open_writer("s", queue=queue) as writer:
        await writer.send_chunk("x")


async def test_a_gateway_without_its_backend_does_not_start(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistyped variable is reported when the process starts, not in the first request."""
    monkeypatch.setenv("STREAMQ_MEMORY_STORRE", "x")
    app = create_app(settings=settings)
    with pytest.raises(ConfigurationError, match="STREAMQ_MEMORY_STORRE"):
        async with serve(app):
            pytest.fail("it started")


def test_options_that_are_not_positive_are_refused() -> None:
    """A heartbeat of zero would flood every client."""
    with pytest.raises(ConfigurationError, match="heartbeat_seconds must be positive"):
        GatewayOptions(heartbeat_seconds=0)


async def test_other_tenants_are_out_of_reach(
    queue: WatchedQueue, settings: Settings, start: Serve
) -> None:
    """A gateway shows only the streams of one tenant."""
    other = settings.model_copy(update={"tenant": "other"})
    async with open_writer("s", queue=queue, settings=other) as writer:
        await writer.send_chunk("x")
    served = await start()
    assert (await served.get("/streams")).json()["streams"] == []
    for name in ("s", "../other/s", "other/s"):
        assert (await served.get(f"/streams/{name}")).status_code == 404


async def test_a_memory_gateway_sees_writers_of_its_own_process(settings: Settings) -> None:
    """The demo needs no broker: writer and gateway open the same configured queue."""
    app = create_app(settings=settings)
    async with serve(app) as server, httpx.AsyncClient(base_url=server.url) as client:
        async with open_queue(settings) as queue, open_writer("s", queue=queue) as writer:
            await writer.send_chunk("x")
        assert (await client.get("/streams/s")).json()["offset"] == 2
