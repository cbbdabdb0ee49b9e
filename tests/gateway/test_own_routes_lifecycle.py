"""Routes of an application's own, while it starts, stops, wraps requests, and is used wrongly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI, HTTPException
from fastapi.testclient import TestClient
from httpx_sse import aconnect_sse
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response

from streamq import ConfigurationError, load_settings, open_writer
from streamq.driver import StreamId
from streamq.gateway import Gateway, GatewayOptions, StreamResponses, create_app
from streamq.gateway import serve as serve_app

from .own_routes import SETTINGS, application, seen, starting, write
from .served import WatchedQueue, eventually


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Any]]:
    async with starting() as start:
        yield start


async def test_a_connection_ends_with_the_session(queue: WatchedQueue, start: Any) -> None:
    """The client comes back, and the route decides anew."""
    streams = StreamResponses(queue=queue, settings=SETTINGS)
    app = FastAPI()

    @app.get("/events")
    async def events(request: Request, seconds: float, several: bool = False) -> Response:
        names: Any = ["a", "b"] if several else "a"
        return await streams.events(request, names, expires_at=time.time() + seconds)

    client = await start(app)
    async with open_writer("a", queue=queue) as writer, open_writer("b", queue=queue):
        await writer.send_chunk("x")
        await writer.flush()
        for more in ("", "&several=true"):
            async with aconnect_sse(client, "GET", f"/events?seconds=0.5{more}") as source:
                found = [event async for event in source.aiter_sse() if event.data]
            assert found[0].event == "token"
            assert 0 < found[0].json()["expires_in_seconds"] <= 0.5
            assert (found[-1].event, found[-1].json()["reason"]) == ("reconnect", "token_expired")
        assert seen(await client.get("/events?seconds=-1")) == (401, "invalid_token")


async def test_old_connections_are_closed(queue: WatchedQueue, start: Any) -> None:
    """A proxy that lost its client would otherwise keep one for ever."""
    options = GatewayOptions(max_age_seconds=0.3)
    client = await start(
        application(StreamResponses(queue=queue, settings=SETTINGS, options=options))
    )
    async with open_writer("ada/a", queue=queue) as writer:
        await writer.send_chunk("x")
        await writer.flush()
        async with aconnect_sse(client, "GET", "/chats/a/events") as source:
            found = [event async for event in source.aiter_sse() if event.data]
    assert (found[-1].event, found[-1].json()["reason"]) == ("reconnect", "max_age")


@pytest.mark.parametrize("is_mounted", [True, False])
@pytest.mark.parametrize("has_lifespan", [True, False])
async def test_with_and_without_a_lifespan(
    is_mounted: bool, has_lifespan: bool, tmp_path: Any, monkeypatch: Any, start: Any
) -> None:
    """What a parent runs of the gateway is its own business."""
    monkeypatch.setenv("STREAMQ_SQLITE_PATH", str(tmp_path / "streams.db"))
    settings = load_settings(backend="sqlite")
    async with open_writer("ada/a", settings=settings) as writer:
        await writer.send_chunk("x")
    gateway = create_app(settings=settings)
    streams = StreamResponses(gateway) if is_mounted else StreamResponses(settings=settings)
    app = application(streams, **({"lifespan": streams.lifespan} if has_lifespan else {}))
    if is_mounted:
        app.mount("/live", gateway)
    client = await start(app)
    assert '"value":"x"' in (await client.get("/chats/a/events")).text
    if is_mounted:
        assert '"value":"x"' in (await client.get("/live/events/ada/a")).text


def test_under_a_test_client(tmp_path: Any, monkeypatch: Any) -> None:
    """Each request of a TestClient without `with` has an event loop of its own."""
    monkeypatch.setenv("STREAMQ_SQLITE_PATH", str(tmp_path / "streams.db"))
    settings = load_settings(backend="sqlite")

    async def prepare() -> None:
        async with open_writer("ada/a", settings=settings) as writer:
            await writer.send_chunk("x")

    asyncio.run(prepare())
    streams = StreamResponses(settings=settings)
    head = {"X-User": "ada"}
    client = TestClient(application(streams))
    for _ in range(3):
        assert '"value":"x"' in client.get("/chats/a/events", headers=head).text
        assert client.get("/chats", headers=head).json()["is_complete"] is True
        assert client.get("/chats/b", headers=head).status_code == 404
        assert client.get("/several?wait=0", headers=head).status_code == 200
    with TestClient(application(streams, lifespan=streams.lifespan)) as running:
        for _ in range(2):
            assert '"value":"x"' in running.get("/chats/a/events", headers=head).text


async def test_under_a_middleware_that_wraps_requests(queue: WatchedQueue, start: Any) -> None:
    """Starlette's BaseHTTPMiddleware hands on another request and response."""
    app = application(StreamResponses(queue=queue, settings=SETTINGS))

    async def passing(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    app.add_middleware(BaseHTTPMiddleware, dispatch=passing)
    client = await start(app)
    async with open_writer("ada/a", queue=queue) as writer:
        await writer.send_chunk("x")
        await writer.flush()
        async with aconnect_sse(client, "GET", "/chats/a/events") as source:
            events = aiter(source.aiter_sse())
            assert (await anext(events)).json()["value"] == "x"
            await writer.send_chunk("y")
            await writer.flush()
            assert (await anext(events)).json()["value"] == "y"


async def test_what_a_route_does_afterwards_is_done(queue: WatchedQueue, start: Any) -> None:
    """FastAPI's background tasks belong to the response, whichever kind it is."""
    await write(queue, "ada/a")
    streams, app = StreamResponses(queue=queue, settings=SETTINGS), FastAPI()
    done: list[str] = []

    @app.get("/{kind}")
    async def events(kind: str, request: Request, later: BackgroundTasks) -> Response:
        later.add_task(done.append, kind)
        return await streams.events(request, "ada/a" if kind == "one" else ["ada/a"])

    client = await start(app)
    for kind in ("one", "many"):
        assert "0 of ada/a" in (await client.get(f"/{kind}")).text
        await eventually(lambda kind=kind: done[-1:] == [kind])  # type: ignore[misc]


@pytest.mark.parametrize("names", ["ada/a", ["ada/a", "ada/b"]], ids=["one", "many"])
async def test_a_response_that_is_not_returned_gives_its_place_back(
    names: str | list[str], queue: WatchedQueue, start: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A route that fails after its answer was made would otherwise use up all connections."""
    monkeypatch.setattr("streamq.gateway._live_response._UNUSED_SECONDS", 0.5)
    app, own = create_app(queue, SETTINGS), FastAPI()
    streams, kept = StreamResponses(app), list[Response]()

    @own.get("/kept")
    async def keep(request: Request) -> Response:
        kept.append(await streams.events(request, names))
        raise HTTPException(418, "after all not")

    @own.get("/late")
    async def late(request: Request) -> Response:
        return kept[0]

    @own.get("/live")
    async def live(request: Request) -> Response:
        return await streams.events(request, "ada/a")

    client = await start(own)
    async with AsyncExitStack() as stack:
        writer = await stack.enter_async_context(open_writer("ada/a", queue=queue))
        await stack.enter_async_context(aconnect_sse(client, "GET", "/live?wait=9"))
        await writer.send_chunk("x")
        await writer.flush()
        assert (await client.get("/kept")).status_code == 418
        gateway: Gateway = app.state.gateway
        assert gateway.bounds.connections.held == 2
        await eventually(lambda: gateway.bounds.connections.held == 1)
        await eventually(lambda: not gateway.bounds.shared.held)
        late_answer = (await client.get("/late")).text
        assert '"reason":"max_age"' in late_answer  # the client comes back
        assert not [task for task in asyncio.all_tasks() if "line" in task.get_name()]
        hub = gateway._hubs.usable(StreamId("default", "ada/a"))
        assert hub is not None
        assert hub.clients == 1  # the other reader goes on
    await streams.aclose()


async def test_the_server_stops_although_streams_are_open(
    queue: WatchedQueue,
) -> None:
    """A deployment would otherwise wait for the oldest reader."""
    app = application(StreamResponses(queue=queue, settings=SETTINGS))
    async with open_writer("ada/a", queue=queue) as writer, AsyncExitStack() as stack:
        await writer.send_chunk("x")
        await writer.flush()
        running = AsyncExitStack()
        server = await running.enter_async_context(serve_app(app))
        client = await stack.enter_async_context(
            httpx.AsyncClient(base_url=server.url, headers={"X-User": "ada"}, timeout=10)
        )
        source = await stack.enter_async_context(aconnect_sse(client, "GET", "/chats/a/events"))
        events = aiter(source.aiter_sse())
        assert (await anext(events)).event == "chunk"
        closing = asyncio.create_task(running.aclose())
        last = await anext(events)
        assert (last.event, last.json()["reason"]) == ("reconnect", "stopping")
        async with asyncio.timeout(10):
            await closing


async def test_what_is_no_request_or_no_stream_is_an_error_at_once(
    queue: WatchedQueue, start: Any
) -> None:
    """A name that is `None` by mistake must not become a stream called "None"."""
    streams = StreamResponses(queue=queue, settings=SETTINGS)
    request = Request({"type": "http", "method": "GET", "headers": [], "query_string": b""})
    wrong: Any
    for wrong in (None, 7, b"a"):
        with pytest.raises(TypeError, match="a stream is"):
            await streams.status(request, wrong)
        with pytest.raises(TypeError, match="a stream is"):
            await streams.events(request, [wrong])
    for wrong in (None, 7):
        with pytest.raises(TypeError, match="streams is"):
            await streams.events(request, wrong)
    for wrong in (None, "a", {"type": "http"}):
        with pytest.raises(TypeError, match="give the request of the route"):
            await streams.events(wrong, "a")
        with pytest.raises(TypeError, match="give the request of the route"):
            await streams.events(wrong, ["a"])
        with pytest.raises(TypeError, match="give the request of the route"):
            await streams.list(wrong, prefix="a")
    with pytest.raises(TypeError, match="tenant acme"):
        await streams.status(request, StreamId("acme", "a"), tenant="globex")
    with pytest.raises(TypeError, match="have one tenant"):
        await streams.events(request, [StreamId("acme", "a"), StreamId("globex", "a")])
    for of in ({}, {"prefix": ""}, {"prefix": "/"}, {"prefix": "a", "every": True}):
        with pytest.raises(ConfigurationError, match="cannot be permitted"):
            await streams.list(request, **of)
    with pytest.raises(ConfigurationError, match="expires_at is 'soon'"):
        await streams.events(request, "a", expires_at="soon")  # type: ignore[arg-type]


def test_what_is_no_gateway_is_refused(queue: WatchedQueue) -> None:
    """The parent is easily given instead of what it has mounted."""
    with pytest.raises(TypeError, match="app is FastAPI, and not what create_app"):
        StreamResponses(FastAPI())
    with pytest.raises(TypeError, match="give them to create_app"):
        StreamResponses(create_app(queue, SETTINGS), settings=SETTINGS)


def test_routes_of_ones_own_need_no_warning(
    queue: WatchedQueue, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is open: only the routes lead to streams."""
    StreamResponses(queue=queue, settings=SETTINGS)
    assert not caplog.messages


async def test_closing_ends_connections(queue: WatchedQueue, start: Any) -> None:
    """A parent that closes in its own lifespan ends the streams, too."""
    streams = StreamResponses(queue=queue, settings=SETTINGS)
    client = await start(application(streams))
    async with open_writer("ada/a", queue=queue) as writer:
        await writer.send_chunk("x")
        await writer.flush()
        async with aconnect_sse(client, "GET", "/chats/a/events") as source:
            events = aiter(source.aiter_sse())
            await anext(events)
            await streams.aclose()
            assert (await anext(events)).json()["reason"] == "stopping"
    await streams.aclose()
    assert (await client.get("/chats/a")).status_code == 200  # it can be used again
