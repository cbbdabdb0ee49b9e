"""Readers through a gateway, beside readers on its backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from tests.gateway.served import WatchedQueue, eventually

from streamq import (
    AccessDeniedError,
    BackendError,
    BackendUnavailableError,
    CapabilityError,
    Chunk,
    ConfigurationError,
    CursorError,
    Gap,
    SerializationError,
    StreamNotFoundError,
    ThrottledError,
    TrimmedError,
    describe,
    load_settings,
    open_gateway,
    open_reader,
    open_writer,
    read_story,
)
from streamq.driver import StreamId
from streamq.gateway import create_app, serve
from streamq.over_http._queue import GatewayQueue
from streamq.testing import FaultProxy

from .serving import SETTINGS, Serving, everything
from .stories import write_everything


class Xor:
    """A codec that only the readers and writers of this test have."""

    async def encode(self, data: bytes) -> bytes:
        return bytes(byte ^ 0x5A for byte in data)

    async def decode(self, data: bytes) -> bytes:
        return await self.encode(data)


@pytest.mark.parametrize("codec", [None, Xor()], ids=["plain", "encrypted"])
async def test_events_and_cursors_are_those_of_the_backend(
    codec: Xor | None, queue: WatchedQueue, serving: Serving
) -> None:
    """The gateway does not need the keys, and a reader may change sides at any event."""
    await write_everything(queue, "a/s", codec)
    async with serving() as server:
        here = await everything("a/s", queue=queue, codec=codec)
        there = await everything(f"{server.url}/events/a/s", codec=codec)
        assert there == here
        middle = here[len(here) // 2][1]
        rest = await everything(f"{server.url}/events/a/s", codec=codec, from_=middle)
        assert rest == here[len(here) // 2 + 1 :]
        if codec is not None:
            with pytest.raises(SerializationError):
                await everything(f"{server.url}/events/a/s")


async def test_values_have_their_type_and_headers_arrive(
    queue: WatchedQueue, serving: Serving
) -> None:
    """The options of a reader mean the same on both ways."""
    async with open_writer("s", queue=queue, settings=SETTINGS, headers={"model": "m"}) as writer:
        await writer.send_chunk({"1": 2})
    async with (
        serving() as server,
        open_reader(f"{server.url}/?stream=s", value_type=dict[int, float]) as reader,
    ):
        chunk = await anext(reader)
        assert isinstance(chunk, Chunk)
        assert chunk.value == {1: 2.0}
        assert reader.headers == {"model": "m"}


async def test_trimmed_events_are_reported(queue: WatchedQueue, serving: Serving) -> None:
    """A reader must not take what is left for the whole story."""
    async with open_writer("s", queue=queue, settings=SETTINGS) as writer:
        for number in range(6):
            await writer.send_chunk(number)
            await writer.flush()
    queue.trimmed = 4
    async with serving() as server:
        address = f"{server.url}/events/s"
        with pytest.raises(TrimmedError):
            await everything(address)
        found = [event for event, _ in await everything(address, gaps_as_events=True)]
        assert isinstance(found[0], Gap)
        assert found == [e for e, _ in await everything("s", queue=queue, gaps_as_events=True)]


async def test_stream_that_began_again_is_no_continuation(
    queue: WatchedQueue, serving: Serving
) -> None:
    """The events of another stream of the same name must not look like the next ones."""
    for word in ("old", "new"):
        async with open_writer("s", queue=queue, settings=SETTINGS) as writer:
            for _ in range(3):
                await writer.send_chunk(word)
        async with serving() as server:
            address = f"{server.url}/events/s"
            if word == "old":
                cursor = (await everything(address))[1][1]
                await queue.delete(StreamId("default", "s"))
            else:
                with pytest.raises(CursorError):
                    await everything(address, from_=cursor)


async def test_deleted_stream_is_reported_as_vanished(
    queue: WatchedQueue, serving: Serving
) -> None:
    """A reader hears at once that the rest of a stream will not come."""
    settings = load_settings(backend="memory", gateway_anonymous="read,delete")
    async with serving(settings) as server:
        writer = await open_writer("s", queue=queue, settings=SETTINGS)
        await writer.send_chunk("one")
        await writer.flush()
        await writer.aclose()
        async with open_reader(f"{server.url}/events/s", settings=SETTINGS) as reader:
            await anext(reader)
            reading = asyncio.ensure_future(anext(reader))
            await asyncio.sleep(0)
            async with httpx.AsyncClient(base_url=server.url) as client:
                assert (await client.delete("/streams/s")).status_code == 204
            with pytest.raises(StreamNotFoundError, match="vanished"):
                await reading


async def test_reader_goes_on_after_a_restart_of_the_gateway(queue: WatchedQueue) -> None:
    """A deployment of the gateway is no event of a stream."""
    settings = load_settings(backend="memory", retry_seconds=20)
    async with open_writer("s", queue=queue) as writer:
        server = serve(create_app(queue, SETTINGS))
        running = await server.__aenter__()
        host, port = running.url.removeprefix("http://").split(":")
        async with FaultProxy(host, int(port)) as proxy:
            address = f"http://{proxy.address}/events/s"
            async with open_reader(address, settings=settings) as reader:
                for number in range(3):
                    await writer.send_chunk(number)
                    await writer.flush()
                    event = await anext(reader)
                    assert isinstance(event, Chunk)
                    assert event.value == number
                    await server.__aexit__(None, None, None)
                    server = serve(create_app(queue, SETTINGS))
                    running = await server.__aenter__()
                    host, port = running.url.removeprefix("http://").split(":")
                    proxy.redirect(host, int(port))
        await server.__aexit__(None, None, None)


async def test_every_byte_may_be_the_last_of_a_connection(
    queue: WatchedQueue, serving: Serving
) -> None:
    """A cut within a frame, a line or a header must not lose or repeat a record."""
    async with open_writer("s", queue=queue) as writer:
        for number in range(300):
            await writer.send_chunk(f"{number} " * 50)
            if number % 10 == 0:
                await writer.flush()
    expected = await everything("s", queue=queue)
    async with serving() as server:
        host, port = server.url.removeprefix("http://").split(":")
        async with FaultProxy(host, int(port)) as proxy:
            for n_bytes in (900, 1_300, 1_700, 5_000, 40_000, 77_777):
                proxy.cut_after(n_bytes)
                assert await everything(f"http://{proxy.address}/events/s") == expected


async def test_responses_that_end_at_once_are_not_asked_for_at_full_speed(
    queue: WatchedQueue, serving: Serving
) -> None:
    """A proxy that cuts everything must not get a thousand requests a second of each reader."""
    async with serving(max_age_seconds=0.001) as server, open_writer("s", queue=queue) as writer:
        await writer.send_chunk("x")
        await writer.flush()
        async with open_reader(f"{server.url}/events/s", settings=SETTINGS) as reader:
            await anext(reader)
            begin = queue.count("read")
            await reader.read_batch(max_wait=1.5)
            assert queue.count("read") - begin < 30
            await writer.send_chunk("y")
            await writer.flush()
            event = await anext(reader)
            assert isinstance(event, Chunk)
            assert event.value == "y"


async def test_one_connection_pool_serves_many_readers(
    queue: WatchedQueue, serving: Serving
) -> None:
    """A service follows hundreds of streams; one slow reader delays no other."""
    async with serving() as server, open_gateway(server.url, settings=SETTINGS) as gateway:
        names = [f"s{number}" for number in range(60)]

        async def follow(name: str) -> object:
            async with open_reader(name, queue=gateway, settings=SETTINGS) as reader:
                return [event.value for event in [e async for e in reader][:-1]]  # type: ignore

        async with (
            open_reader("slow", queue=gateway, settings=SETTINGS) as slow,
            open_writer("slow", queue=queue) as writer,
        ):
            await writer.send_chunk("x")
            await writer.flush()
            assert isinstance(await anext(slow), Chunk)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(follow(name)) for name in names]
                for name in names:
                    async with open_writer(name, queue=queue) as one:
                        await one.send_chunk(name)
        assert [task.result() for task in tasks] == [[name] for name in names]
        assert isinstance(gateway, GatewayQueue)
        await eventually(lambda: len(gateway._idle) <= 16)
        status = await describe("s1", queue=gateway, settings=SETTINGS)
        assert status == await describe("s1", queue=queue, settings=SETTINGS) or status.offset == 2
        listed = sorted([info.stream.name async for info in gateway.streams("default", "s")])
        assert listed == sorted([*names, "slow"])
        story = await read_story("s2", queue=gateway, settings=SETTINGS)
        assert story.values == ["s2"]
    assert not [task for task in asyncio.all_tasks() if "feed" in task.get_name()]


async def test_a_story_is_read_by_its_address(queue: WatchedQueue, serving: Serving) -> None:
    """A program that wants the final text should not need a queue for it."""
    async with open_writer("s", queue=queue) as writer:
        await writer.send_chunk("all")
    async with serving() as server:
        story = await read_story(f"{server.url}/events/s", settings=SETTINGS)
    assert story.values == ["all"]


async def test_a_gateway_takes_no_records(queue: WatchedQueue, serving: Serving) -> None:
    """The refusal has to say what would work."""
    async with serving() as server, open_gateway(server.url) as gateway:
        with pytest.raises(CapabilityError, match=r"open_queue\(\)"):
            await open_writer("s", queue=gateway, settings=SETTINGS)
        with pytest.raises(CapabilityError, match="deleted"):
            await gateway.delete(StreamId("default", "s"))
    with pytest.raises(ConfigurationError, match="argument token is for the address"):
        await open_reader("s", token="x", queue=queue)


async def test_more_streams_than_a_gateway_lists_are_an_error(
    queue: WatchedQueue, serving: Serving
) -> None:
    """A list that looks complete and is not would lose streams."""
    for number in range(1_001):
        await (await open_writer(f"s{number}", queue=queue, settings=SETTINGS)).aclose()
    async with serving() as server, open_gateway(server.url) as gateway:
        infos = gateway.streams("default")
        for _ in range(1_000):
            await anext(infos)
        with pytest.raises(CapabilityError, match="longer prefix"):
            await anext(infos)


async def test_a_client_beyond_its_bound_goes_on_in_pages(
    queue: WatchedQueue, serving: Serving
) -> None:
    """A bound of connections makes a reader slower, and does not stop it."""
    async with (
        serving(max_connections=2) as server,  # one for each client
        open_gateway(server.url) as gateway,
        open_writer("s", queue=queue) as writer,
        open_reader("s", queue=gateway, settings=SETTINGS) as first,
        open_reader("s", queue=gateway, settings=SETTINGS) as second,
    ):
        for number in range(3):
            await writer.send_chunk(number)
            await writer.flush()
            for reader in (first, second):
                event = await anext(reader)
                assert isinstance(event, Chunk)
                assert event.value == number


@pytest.fixture
async def elsewhere() -> AsyncIterator[tuple[str, list[str | None]]]:
    """A server that is no gateway: it redirects, and remembers the tokens that it gets."""
    seen: list[str | None] = []

    async def redirect(request: Request) -> Response:
        seen.append(request.headers.get("authorization"))
        if request.url.path.startswith("/ok"):
            return Response("<html>")
        if request.url.path.startswith("/login"):
            return Response("no", 401)
        if request.url.path.startswith("/down"):
            return Response("no", 502)
        if request.url.path.startswith("/busy"):
            return Response("no", 503, headers={"Retry-After": "1"})
        return RedirectResponse(f"http://localhost:{request.url.port}/ok/records")

    routes = [Route("/{path:path}", redirect)]
    async with serve(Starlette(routes=routes)) as server:
        yield server.url, seen


async def test_what_is_no_gateway_is_named(elsewhere: tuple[str, list[str | None]]) -> None:
    """And a token is sent to no other server than the one that was given."""
    url, seen = elsewhere
    for path, kind, expected in (
        ("/redirects", BackendError, "redirects to http://localhost:"),
        ("/ok", BackendError, "is no gateway of streamq"),
        ("/login", AccessDeniedError, "a login that is no token"),
        ("/down", BackendUnavailableError, "status 502"),
        ("/busy", ThrottledError, "status 503"),
    ):
        once = load_settings(retry_seconds=0)
        with pytest.raises(kind, match=expected) as refused:
            await open_gateway(url + path, token="a.b.c", settings=once)
        assert "a.b.c" not in str(refused.value)
    assert seen == ["Bearer a.b.c"] * 5
