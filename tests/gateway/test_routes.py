"""The routes of a stream: the verb before the name, the tenant before the verb."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.routing import Mount

from streamq import ConfigurationError, FencedError, Settings, open_writer
from streamq.access import new_secret
from streamq.gateway import create_app, serve

from .served import Serve, Served, WatchedQueue

NAMES = ["a", "x/events", "events", "streams/a", "t/other/events/a", "a/../b", "a//b", "/a", "%2F"]
NOT_LITERAL = [
    "/t/%64efault/events/a",
    "/t%2Fdefault/events/a",
    "/t/default%2Fevents/a",
    "/t/default/events%2Fa",
    "/t/%64efault/events/t/default/events/a",
    "/%65vents/a",
    "/events%2Fa",
    "/%65vents/events/a",
    "/%73treams",
    "/t/default%2Fstreams",
]


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def write(queue: WatchedQueue, name: str, *values: Any, tenant: str | None = None) -> None:
    settings = Settings() if tenant is None else Settings(tenant=tenant)
    async with open_writer(name, queue=queue, settings=settings) as writer:
        for value in values or (f"value of {name}",):
            await writer.send_chunk(value)


async def story(served: Served, path: str) -> dict[str, Any]:
    answer = await served.get(path)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize("prefix", ["", "/t/default"])
async def test_every_name_has_its_address(prefix: str, start: Serve, queue: WatchedQueue) -> None:
    """A topic may be called events, and a workflow id like a route."""
    served = await start()
    for name in NAMES:
        await write(queue, name)
        encoded = quote(name, safe="")
        assert f"value of {name}" in (await served.get(f"{prefix}/events/{encoded}")).text
        read = await story(served, f"{prefix}/story/{encoded}")
        assert [each["value"] for each in read["chunks"]] == [f"value of {name}"]
        status = await story(served, f"{prefix}/streams/{encoded}")
        assert (status["name"], status["state"]) == (name, "END")


async def test_a_slash_need_not_be_encoded_after_a_verb(start: Serve, queue: WatchedQueue) -> None:
    """The former route had to guess where the name ended."""
    await write(queue, "x/events")
    await write(queue, "x", "of x itself")
    served = await start()
    assert "value of x/events" in (await served.get("/events/x/events")).text
    assert "of x itself" in (await served.get("/streams/x/events")).text  # as before
    assert (await served.get("/streams/x%2Fevents")).json()["name"] == "x/events"


async def test_a_story_is_what_is_stored(start: Serve, queue: WatchedQueue) -> None:
    """An application that opens a chat shows what is there, and then follows from its place."""
    served = await start()
    async with open_writer("a", queue=queue) as writer:
        await writer.send_chunk("one")
        await writer.send_chunk({"two": 2})
        await writer.send_chunk(b"\x00")
        found = await story(served, "/story/a")
        assert found["state"] == "OPEN"
        assert found["seal"] is None
        assert found["is_complete"]
        assert [each["offset"] for each in found["chunks"]] == [1, 2, 3]
        assert [each.get("value", each.get("base64")) for each in found["chunks"]] == [
            "one",
            {"two": 2},
            "AA==",
        ]
        assert found["after"] == found["chunks"][-1]["id"]
        await writer.send_chunk("four")
    rest = await served.collect("a", f"after={found['after']}")
    assert [event.event for event in rest] == ["chunk", "end"]
    sealed = await story(served, "/story/a")
    assert sealed["state"] == "END"
    assert sealed["seal"]["event"] == "end"
    assert len(sealed["chunks"]) == 4
    ended = await story(served, f"/story/a?after={sealed['after']}")
    assert (ended["chunks"], ended["is_complete"], ended["state"]) == ([], True, "END")


async def test_a_story_has_the_attempt_that_counts(start: Serve, queue: WatchedQueue) -> None:
    """Chunks of an attempt that was given up are void."""
    served = await start()
    await write_attempts(queue)
    found = await story(served, "/story/a")
    assert [each["value"] for each in found["chunks"]] == ["right"]
    assert found["starts_over"]
    assert found["attempt"] == 2


async def write_attempts(queue: WatchedQueue) -> None:
    with contextlib.suppress(FencedError):
        async with open_writer("a", queue=queue) as first:
            await first.send_chunk("wrong")
            await first.flush()
            async with open_writer("a", queue=queue) as second:
                await second.send_chunk("right")


async def test_a_long_story_has_pages(start: Serve, queue: WatchedQueue) -> None:
    """One answer is bounded, and says where the next one begins; nothing is lost or repeated."""
    values = [f"{i}:{'x' * 20_000}" for i in range(150)]
    await write(queue, "a", *values)
    served = await start()
    read: list[str] = []
    place, pages = "", 0
    while True:
        answer = await served.get(f"/story/a?after={place}" if place else "/story/a")
        assert len(answer.content) < 2_000_000
        page = json.loads(answer.content)
        read += [each["value"] for each in page["chunks"]]
        place, pages = page["after"], pages + 1
        if page["is_complete"]:
            break
    assert read == values
    assert pages > 1


async def test_a_story_of_nothing(start: Serve, queue: WatchedQueue) -> None:
    """An attempt that has sent nothing is there; a stream that nobody opened is not."""
    served = await start()
    async with open_writer("a", queue=queue) as writer:
        await writer.flush()
        found = await story(served, "/story/a")
        assert (found["chunks"], found["is_complete"]) == ([], True)
        await writer.send_chunk("x")
    assert (await served.get("/story/none")).json()["error"] == "stream_not_found"
    assert (await served.get("/story/a?after=77")).json()["error"] == "cursor"
    assert (await served.get("/story/a?after=x")).json()["error"] == "bad_request"


async def test_deleting(queue: WatchedQueue, settings: Settings, stack: AsyncExitStack) -> None:
    """Who follows the stream hears it at once, and a client that repeats itself breaks nothing."""
    changed = settings.model_copy(update={"gateway_anonymous": "read, delete"})
    served = await Serve(stack, queue, changed)(heartbeat_seconds=300)
    stack.enter_context(contextlib.suppress(FencedError))  # of the writer, at the end
    writer = await stack.enter_async_context(open_writer("x/events", queue=queue))
    await writer.send_chunk("one")
    async with served.events("x%2Fevents") as source:
        events = source.aiter_sse()
        assert (await anext(events)).json()["value"] == "one"
        unclear = await served.client.delete("/streams/x/events")
        assert (unclear.status_code, unclear.json()["error"]) == (400, "bad_request")
        for _ in range(2):
            gone = await served.client.delete("/streams/x%2Fevents")
            assert (gone.status_code, gone.content) == (204, b"")
        last = await anext(events)
    assert (last.event, last.json()["error"]) == ("error", "stream_not_found")
    for path in ("/streams/{}", "/events/{}", "/story/{}"):
        assert (await served.get(path.format("x%2Fevents"))).status_code == 404
    async with open_writer("x/events", queue=queue) as again:
        await again.send_chunk("two")
    assert await served.values("x%2Fevents") == ["two"]


async def test_what_is_deleted_is_sent_to_nobody_any_more(
    queue: WatchedQueue, settings: Settings, stack: AsyncExitStack
) -> None:
    """Also not to a client that is far behind, for which the gateway has kept it in memory."""
    changed = settings.model_copy(update={"gateway_anonymous": "read, delete"})
    served = await Serve(stack, queue, changed)(ring_bytes=64_000_000)
    async with served.events("a", "wait=60") as live:
        seen = live.aiter_sse()
        await write(queue, "a", *(f"{i}:{'x' * 10_000}" for i in range(1_000)))
        while (await anext(seen)).event != "end":  # from now on every event is in memory
            pass
    async with served.events("a") as source:
        events = source.aiter_sse()
        await anext(events)
        assert (await served.client.delete("/streams/a")).status_code == 204
        rest = [event async for event in events]
    assert (rest[-1].event, rest[-1].json()["error"]) == ("error", "stream_not_found")
    assert len(rest) < 1_000  # what was on its way


async def test_deleting_needs_to_be_permitted(start: Serve, queue: WatchedQueue) -> None:
    """A gateway that everybody reaches has shown streams so far, and not removed them."""
    await write(queue, "a")
    served = await start()
    answer = await served.client.delete("/streams/a")
    assert (answer.status_code, answer.json()["error"]) == (403, "insufficient_scope")
    assert "STREAMQ_GATEWAY_ANONYMOUS" in answer.json()["message"]
    assert (await served.get("/streams/a")).status_code == 200


async def test_the_path_names_a_tenant_only_to_those_who_are_trusted(
    queue: WatchedQueue, settings: Settings, stack: AsyncExitStack
) -> None:
    """Whoever guesses a path would otherwise read everybody's streams."""
    await write(queue, "a", "of other", tenant="other")
    await write(queue, "a", "of default")
    closed = await Serve(stack, queue, settings)()
    trusting = settings.model_copy(update={"gateway_trust_tenants": True})
    opened = await Serve(stack, queue, trusting)()
    for path in ("/t/other/events/a", "/t/other/story/a", "/t/other/streams/a"):
        theirs = await closed.get(path)
        absent = await closed.get(path.replace("other", "nobody"))
        assert theirs.status_code == absent.status_code == 404
        assert theirs.text.replace("other", "nobody") == absent.text
        assert (await opened.get(path)).status_code == 200
    assert "of other" in (await opened.get("/t/other/events/a")).text
    assert "of default" in (await opened.get("/events/a")).text
    for served, tenant, listed in (
        (closed, "other", 0),
        (closed, "default", 1),
        (opened, "other", 1),
        (opened, "nobody", 0),
    ):
        found = (await served.get(f"/t/{tenant}/streams")).json()
        assert (len(found["streams"]), found["is_complete"]) == (listed, True)
    with pytest.raises(ConfigurationError, match="STREAMQ_GATEWAY_TRUST_TENANTS"):
        create_app(settings=trusting.model_copy(update={"token_key": SecretStr(new_secret())}))


@pytest.mark.parametrize("mount", ["", "/events", "/in%20it"])
async def test_what_stands_before_the_name_is_written_as_it_is(
    mount: str, queue: WatchedQueue, settings: Settings, stack: AsyncExitStack
) -> None:
    """A proxy that lets only one tenant through compares the path as it was sent."""
    await write(queue, "a")
    app = create_app(queue, settings)
    parent = Starlette(routes=[Mount(mount.replace("%20", " "), app)]) if mount else app
    server = await stack.enter_async_context(serve(parent))
    http = await stack.enter_async_context(httpx.AsyncClient(base_url=server.url))
    for path in NOT_LITERAL:
        assert (await http.get(f"{mount}{path}")).status_code == 404, path
    for good in ("/t/default/events/a", "/events/a", "/streams", "/t/default/streams"):
        assert (await http.get(f"{mount}{good}")).status_code == 200


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/events/a?form=tail", "did you mean from?"),
        ("/t/default/events/a?waits=3", "did you mean wait?"),
        ("/streams/a/events?attempt=last", "did you mean attempts?"),
        ("/events?stream=a&prefixes=b", "did you mean prefix?"),
        ("/story/a?form=last&as=text", "did you mean from?"),
        ("/records/a?folow=false", "did you mean follow?"),
        ("/records?follow=false", "it has no options"),
        ("/streams?details=true&limits=3", "did you mean limit?"),
        ("/streams/a?x=1", "it has no options"),
    ],
)
async def test_an_option_that_a_route_does_not_have_is_refused(
    path: str, hint: str, start: Serve, queue: WatchedQueue
) -> None:
    """A misspelt one would do nothing, and the client read what it did not ask for."""
    await write(queue, "a", 1)
    answer = await (await start()).client.get(path)
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")
    assert hint in answer.json()["message"]
