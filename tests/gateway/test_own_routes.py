"""An application answers from routes of its own, as the gateway would."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Body, FastAPI
from httpx_sse import aconnect_sse
from starlette.requests import Request
from starlette.responses import Response

from streamq import BackendUnavailableError, open_writer
from streamq.driver import StreamId
from streamq.gateway import Gateway, GatewayOptions, StreamResponses, create_app

from .own_routes import SETTINGS, application, seen, starting, write
from .served import WatchedQueue, number


@pytest.fixture
async def start() -> AsyncIterator[Callable[..., Any]]:
    async with starting() as start:
        yield start


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
