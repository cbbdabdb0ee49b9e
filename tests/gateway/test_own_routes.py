"""An application answers from routes of its own, as the gateway would."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from fastapi import BackgroundTasks, Body, Depends, FastAPI, HTTPException
from fastapi.testclient import TestClient
from httpx_sse import aconnect_sse
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import Response

from streamq import (
    BackendUnavailableError,
    ConfigurationError,
    load_settings,
    open_writer,
)
from streamq.driver import StreamId
from streamq.gateway import Gateway, GatewayOptions, StreamResponses, create_app
from streamq.gateway import serve as serve_app

from .served import WatchedQueue, eventually, number

SETTINGS = load_settings(backend="memory", retry_seconds=0.05)


def user(request: Request) -> str:
    """Return who asks, as a dependency would."""
    name = request.headers.get("x-user")
    if name is None:
        raise HTTPException(401, "log in first")
    return name


User = Annotated[str, Depends(user)]


def application(streams: StreamResponses, **options: Any) -> FastAPI:
    """Return an application with a route for everything, for the chats of whoever asks."""
    app = FastAPI(**options)

    @app.get("/chats/{name}/events")
    async def events(name: str, user: User, request: Request) -> Response:
        return await streams.events(request, f"{user}/{name}")

    @app.get("/chats/{name}/story")
    async def story(name: str, user: User, request: Request) -> Response:
        return await streams.story(request, f"{user}/{name}")

    @app.get("/chats/{name}")
    async def status(name: str, user: User, request: Request) -> Response:
        return await streams.status(request, f"{user}/{name}")

    @app.post("/chats/{name}/stop")
    async def stop(name: str, user: User, request: Request) -> Response:
        return await streams.cancel(request, f"{user}/{name}")

    @app.delete("/chats/{name}")
    async def delete(name: str, user: User, request: Request) -> Response:
        return await streams.delete(request, f"{user}/{name}")

    @app.get("/chats")
    async def listing(user: User, request: Request) -> Response:
        return await streams.list(request, prefix=user)

    @app.api_route("/several", methods=["GET", "POST"])
    async def several(user: User, request: Request) -> Response:
        return await streams.events(request, [f"{user}/a", f"{user}/b"])

    return app


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Any]]:
    async with AsyncExitStack() as stack:

        async def begin(app: Any, user: str | None = "ada") -> httpx.AsyncClient:
            server = await stack.enter_async_context(serve_app(app))
            headers = {} if user is None else {"X-User": user}
            return await stack.enter_async_context(
                httpx.AsyncClient(base_url=server.url, headers=headers, timeout=10)
            )

        yield begin


async def write(queue: Any, *names: str, tenant: str = "default", chunks: int = 1) -> None:
    settings = SETTINGS.model_copy(update={"tenant": tenant})
    for name in names:
        async with open_writer(name, queue=queue, settings=settings) as writer:
            for i in range(chunks):
                await writer.send_chunk(f"{i} of {name}")


def seen(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json().get("error", "")


async def test_every_answer_is_that_of_the_gateway(queue: WatchedQueue, start: Any) -> None:
    """Byte by byte: whoever has a client of the gateway has one of the application."""
    await write(queue, "ada/a", "ada/b", "bob/a", chunks=3)
    app = create_app(queue, SETTINGS)
    own = await start(application(StreamResponses(app)))
    gateway = await start(app)
    for path, same in (
        ("/chats/a/events", "/events/ada/a"),
        ("/chats/a/events?from=tail", "/events/ada/a?from=tail"),
        ("/chats/a/events?from=last", "/events/ada/a?from=last"),
        ("/chats/a/events?after=2", "/events/ada/a?after=2"),
        ("/chats/a/events?after=2&from=tail", "/events/ada/a?after=2&from=tail"),
        ("/chats/a/events?after=99", "/events/ada/a?after=99"),
        ("/chats/a/events?after=4", "/events/ada/a?after=4"),
        ("/chats/nobody/events", "/events/ada/nobody"),
        ("/chats/a/story", "/story/ada/a"),
        ("/chats/a/story?after=1", "/story/ada/a?after=1"),
        ("/chats/nobody/story", "/story/ada/nobody"),
        ("/chats/a", "/streams/ada/a"),
        ("/chats/nobody", "/streams/ada/nobody"),
        ("/chats", "/streams?prefix=ada/"),
        ("/chats?details=true", "/streams?prefix=ada/&details=true"),
        ("/chats?limit=1", "/streams?prefix=ada/&limit=1"),
        ("/chats?limit=x", "/streams?prefix=ada/&limit=x"),
        ("/chats?prefix=ada/b", "/streams?prefix=ada/b"),
        ("/several", "/events?stream=ada/a&stream=ada/b"),
        ("/several?from=tail", "/events?stream=ada/a&stream=ada/b&from=tail"),
    ):
        ours, theirs = await own.get(path), await gateway.get(same)
        assert ours.status_code == theirs.status_code, path
        comparable = [
            {k: v for k, v in each.headers.items() if k not in ("date", "content-length")}
            for each in (ours, theirs)
        ]
        assert comparable[0] == comparable[1], path
        texts = []
        for each in (ours, theirs):  # how long it is kept depends on the moment
            text = each.text
            if each.headers.get("content-type") == "application/json":
                found = each.json()
                for one in (found, *found.get("streams", ())):
                    one.pop("expires_in_seconds", None)
                found.pop("actions", None)  # a route of one's own permits what it is for
                text = json.dumps(found)
            texts.append(text)
        assert texts[0] == texts[1], path


async def test_a_dependency_decides_before_anything_is_looked_up(
    queue: WatchedQueue, start: Any
) -> None:
    """The application's own answers stay as they are."""
    await write(queue, "ada/a")
    client = await start(application(StreamResponses(queue=queue, settings=SETTINGS)), user=None)
    answer = await client.get("/chats/a/events")
    assert (answer.status_code, answer.json()) == (401, {"detail": "log in first"})
    answer = await client.get("/chats/a/events", headers={"X-User": "bob"})
    assert seen(answer) == (404, "stream_not_found")


async def test_a_client_goes_on_where_it_was(queue: WatchedQueue, start: Any) -> None:
    """A browser that reconnects sends the last id, and gets the rest and nothing twice."""
    await write(queue, "ada/a", chunks=5)
    client = await start(application(StreamResponses(queue=queue, settings=SETTINGS)))
    async with aconnect_sse(client, "GET", "/chats/a/events") as source:
        first = []
        async for event in source.aiter_sse():
            first.append(event)
            if number(event) == "3":
                break
    head = {"Last-Event-ID": first[-1].id}
    async with aconnect_sse(client, "GET", "/chats/a/events", headers=head) as source:
        rest = [event async for event in source.aiter_sse() if event.data]
    assert [number(each) for each in rest] == ["4", "5", "6"]
    assert rest[-1].event == "end"
    ended = await client.get("/chats/a/events", headers={"Last-Event-ID": rest[-1].id})
    assert ended.status_code == 204
    other = await client.get("/chats/a/events", headers={"Last-Event-ID": "3@1"})
    assert seen(other) == (409, "cursor")


async def test_waiting_and_following_live(queue: WatchedQueue, start: Any) -> None:
    """A chat opens its connection before the workflow has begun."""
    client = await start(application(StreamResponses(queue=queue, settings=SETTINGS)))
    async with aconnect_sse(client, "GET", "/chats/a/events?wait=20") as source:
        async with open_writer("ada/a", queue=queue) as writer:
            await writer.send_chunk("x")
        events = [event async for event in source.aiter_sse() if event.data]
    assert [each.event for each in events] == ["chunk", "end"]


async def test_readers_of_both_share_a_stream(queue: WatchedQueue, start: Any) -> None:
    """A hundred readers of the route cost the backend no more than one."""
    app = create_app(queue, SETTINGS)
    gateway: Gateway = app.state.gateway
    parent = application(StreamResponses(app))
    parent.mount("/live", app)
    client = await start(parent)
    async with AsyncExitStack() as stack:
        writer = await stack.enter_async_context(open_writer("ada/a", queue=queue))
        await writer.send_chunk("x")
        await writer.flush()
        readers = [
            aiter((await stack.enter_async_context(aconnect_sse(client, "GET", path))).aiter_sse())
            for path in ("/chats/a/events", "/chats/a/events", "/live/events/ada/a")
        ]
        for reader in readers:
            assert (await anext(reader)).json()["value"] == "x"
        statistics = gateway.statistics()
        assert (statistics.streams, statistics.connections) == (1, 3)
        before = queue.records_read
        await writer.send_chunk("y")
        await writer.flush()
        for reader in readers:
            assert (await anext(reader)).json()["value"] == "y"
        assert queue.records_read == before + 1


async def test_deleting_and_stopping(queue: WatchedQueue, start: Any) -> None:
    """A delete button and a stop button are a route each."""
    await write(queue, "ada/a", "bob/a")
    client = await start(application(StreamResponses(queue=queue, settings=SETTINGS)))
    assert seen(await client.post("/chats/a/stop")) == (409, "not_cancellable")
    assert seen(await client.post("/chats/a/stop?wait=x")) == (400, "bad_request")
    assert (await client.delete("/chats/a")).status_code == 204
    assert seen(await client.get("/chats/a")) == (404, "stream_not_found")
    head = {"X-User": "bob"}
    assert (await client.get("/chats/a", headers=head)).status_code == 200


async def test_stopping_needs_no_setting_of_tenants(queue: WatchedQueue, start: Any) -> None:
    """The route names the stream, and not the client, so it knows whose workflow that is."""
    settings = SETTINGS.model_copy(update={"temporal_address": "127.0.0.1:1"})
    streams = StreamResponses(queue=queue, settings=settings)
    app = FastAPI()

    @app.post("/stop")
    async def stop(request: Request) -> Response:
        name = "chat-7/11111111-2222-3333-4444-555555555555/main"
        return await streams.cancel(request, name, tenant="acme")

    assert seen(await (await start(app)).post("/stop")) == (503, "temporal_unavailable")


async def test_errors_are_json_and_say_nothing_of_the_inside(
    queue: WatchedQueue, start: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """An application without handlers of its own would answer 500 with a traceback in the log."""
    client = await start(
        application(
            StreamResponses(
                queue=queue, settings=SETTINGS, options=GatewayOptions(retry_seconds=1.2)
            )
        )
    )
    for path in ("/chats/" + "x" * 1_600, "/chats/a/events?from=here"):
        assert seen(await client.get(path)) == (400, "bad_request"), path
    queue.take_down(BackendUnavailableError("cannot reach secret-host"))
    for path in ("/chats/a/events", "/chats/a/events?wait=5", "/chats/a", "/chats"):
        answer = await client.get(path)
        assert seen(answer) == (503, "backend_unavailable")
        assert answer.headers["Retry-After"] == "2"
        assert "secret" not in answer.text
        assert "WWW-Authenticate" not in answer.headers
    assert "secret-host" in caplog.text


async def test_bounds_and_quotas_hold(queue: WatchedQueue, tmp_path: Path, start: Any) -> None:
    """A route of one's own is no way around what protects the process."""
    quotas = tmp_path / "quotas.toml"
    quotas.write_text("[tenants.default.subjects.ada]\nconnections = 1\n")
    settings = SETTINGS.model_copy(update={"quotas": quotas})
    options = GatewayOptions(max_connections=4)
    streams = StreamResponses(queue=queue, settings=settings, options=options)
    parent = FastAPI()

    @parent.get("/events")
    async def events(request: Request, subject: str | None = None) -> Response:
        return await streams.events(request, "a", subject=subject)

    client = await start(parent)
    async with open_writer("a", queue=queue) as writer:
        await writer.send_chunk("x")
        await writer.flush()
        async with aconnect_sse(client, "GET", "/events?subject=ada") as source:
            assert source.response.status_code == 200
            assert seen(await client.get("/events?subject=ada")) == (429, "quota")
            async with aconnect_sse(client, "GET", "/events?subject=bob") as other:
                assert other.response.status_code == 200
                assert seen(await client.get("/events?subject=eve")) == (429, "client_limit")


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


async def test_several_streams_on_one_connection(queue: WatchedQueue, start: Any) -> None:
    """By GET each event has the places of all; by POST the body has them."""
    await write(queue, "ada/a", "ada/b", "ada/c", chunks=3)
    client = await start(application(StreamResponses(queue=queue, settings=SETTINGS)))
    async with aconnect_sse(client, "GET", "/several?stream=ada/c") as source:
        found = [event async for event in source.aiter_sse() if event.data]
    chunks = [each.json() for each in found if each.event == "chunk"]
    assert {each["stream"] for each in chunks} == {"ada/a", "ada/b"}
    assert len(chunks) == 6
    again = await client.get("/several", headers={"Last-Event-ID": found[-1].id})
    assert again.status_code == 204
    places = {each["stream"]: each["place"] for each in chunks if each["offset"] == 2}
    body = {"after": places}
    async with aconnect_sse(client, "POST", "/several", json=body) as source:
        rest = [event.json() async for event in source.aiter_sse() if event.data]
    assert sorted(each["offset"] for each in rest if each["event"] == "chunk") == [3, 3]
    for wrong in (b"{", b'{"from": "here"}', b'{"more": 1}'):
        answer = await client.post("/several", content=wrong)
        assert seen(answer) == (400, "bad_request")


async def test_several_streams_with_a_body_that_fastapi_has_read(
    queue: WatchedQueue, start: Any
) -> None:
    """A route may take its names from the body, too."""
    await write(queue, "a", "b")
    streams = StreamResponses(queue=queue, settings=SETTINGS)
    app = FastAPI()

    @app.post("/events")
    async def events(
        request: Request, after: Annotated[dict[str, str], Body(embed=True)]
    ) -> Response:
        return await streams.events(request, list(after))

    client = await start(app)
    answer = await client.post("/events", json={"after": {"a": "0", "b": "0"}})
    assert "0 of a" in answer.text
    assert "0 of b" in answer.text


async def test_prefixes_on_a_connection(queue: WatchedQueue, start: Any) -> None:
    """A console shows the jobs that a user starts while it is open."""
    await write(queue, "ada/a", "ada2/a", "bob/a", "extra")
    streams = StreamResponses(queue=queue, settings=SETTINGS)
    app = FastAPI()

    @app.get("/events")
    async def events(request: Request) -> Response:
        return await streams.events(request, "extra", prefixes="ada")

    client = await start(app)
    path = "/events?prefix=bob&stream=bob/a"  # not looked at
    async with aconnect_sse(client, "GET", path) as source, asyncio.timeout(20):
        found: set[str] = set()
        is_written = False
        async for event in source.aiter_sse():
            if event.event == "chunk":
                found.add(event.json()["stream"])
            if found == {"ada/a", "extra"} and not is_written:
                is_written = True
                await write(queue, "bob/b", "ada/b")
            if "ada/b" in found:
                break
    assert found == {"ada/a", "extra", "ada/b"}


async def test_no_streams_are_an_ended_connection(queue: WatchedQueue, start: Any) -> None:
    """A user without chats gets nothing, rather than an error or everything."""
    streams = StreamResponses(queue=queue, settings=SETTINGS)
    app = FastAPI()

    @app.get("/events")
    async def events(request: Request) -> Response:
        return await streams.events(request, [])

    assert (await (await start(app)).get("/events")).status_code == 204


async def test_streams_of_other_tenants_by_name_or_identity(
    queue: WatchedQueue, start: Any
) -> None:
    """An application with several companies needs no gateway for each."""
    await write(queue, "a", tenant="acme")
    streams = StreamResponses(queue=queue, settings=SETTINGS)
    app = FastAPI()

    @app.get("/t/{tenant}/{kind}")  # these parameters are the route's, and not the gateway's
    async def status(request: Request, tenant: str, kind: str) -> Response:
        match kind:
            case "name":
                return await streams.status(request, "a", tenant="acme")
            case "identity":
                return await streams.status(request, StreamId("acme", "a"))
            case "list":
                return await streams.list(request, every=True, tenant="acme")
            case "several":
                return await streams.events(request, [StreamId("acme", "a")])
        return await streams.status(request, "a")

    client = await start(app)
    for kind in ("name", "identity"):
        assert (await client.get(f"/t/globex/{kind}")).json()["tenant"] == "acme"
    assert "0 of a" in (await client.get("/t/globex/several")).text
    listed = (await client.get("/t/globex/list")).json()["streams"]
    assert [each["name"] for each in listed] == ["a"]
    assert seen(await client.get("/t/acme/own")) == (404, "stream_not_found")


async def test_a_list_shows_what_the_route_says_and_no_more(
    queue: WatchedQueue, start: Any
) -> None:
    """The client's own prefix narrows it, and never widens it."""
    await write(queue, "ada/a", "ada/b", "ada2/a", "bob/a", "ada")
    client = await start(application(StreamResponses(queue=queue, settings=SETTINGS)))

    async def names(query: str = "") -> list[str]:
        found = (await client.get(f"/chats{query}")).json()["streams"]
        return sorted(each["name"] for each in found)

    assert await names() == ["ada", "ada/a", "ada/b"]
    assert await names("?prefix=ada/b") == ["ada/b"]
    assert await names("?prefix=bob") == await names("?prefix=ada2") == []


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
