"""Requests that the application's own code permits, narrows or refuses."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from httpx_sse import aconnect_sse
from starlette.requests import Request

from streamq.access import Action, Grant, permit
from streamq.driver import StreamId
from streamq.gateway import create_app
from streamq.gateway._request_rights import rights_of_request

from .authorizing import (
    ABSENT,
    FORBIDDEN,
    OPEN,
    STREAMS,
    Start,
    listed,
    own_chats,
    seen,
    starting,
    user,
    write,
)
from .served import WatchedQueue

ROUTES = [
    ("GET", "/events/NAME"),
    ("GET", "/events/NAME?from=tail"),
    ("GET", "/events/NAME?from=last"),
    ("GET", "/events/NAME?after=9999"),
    ("GET", "/streams/NAME/events"),
    ("GET", "/story/NAME"),
    ("GET", "/streams/NAME"),
    ("POST", "/cancel/NAME"),
    ("DELETE", "/streams/NAME"),
]


@pytest.fixture
async def start(queue: WatchedQueue) -> AsyncIterator[Start]:
    async with starting(queue) as start:
        yield start


async def test_each_user_reads_and_lists_the_own_streams(start: Start, queue: WatchedQueue) -> None:
    """The usual hook takes one line, and says it for every route."""
    await write(queue, *STREAMS)
    client = await start(own_chats)
    for name, permitted in (("ada", STREAMS[:2]), ("bob", STREAMS[2:3]), ("eve", ())):
        head = {"X-User": name}
        assert await listed(client, **head) == list(permitted)
        for stream in STREAMS:
            for path in (f"/events/{stream}", f"/story/{stream}", f"/streams/{stream}"):
                answer = await client.get(path, headers=head)
                assert (answer.status_code == 200) == (stream in permitted), (name, path)
                assert ("secret" in answer.text) <= (stream in permitted)
    assert (await client.get("/streams", headers={"X-User": "eve"})).json()["is_complete"]


async def test_what_is_not_permitted_is_not_there(start: Start, queue: WatchedQueue) -> None:
    """In status, body and headers, by every route: names of others stay unknown."""
    await write(queue, *STREAMS)
    client = await start(own_chats)
    for method, path in ROUTES:
        answers = [
            await client.request(method, path.replace("NAME", name), headers={"X-User": "ada"})
            for name in ("chats/bob/1", "chats/bob/0")
        ]
        theirs, absent = answers
        assert seen(theirs) == seen(absent) == ABSENT, path
        assert theirs.text.replace("bob/1", "bob/0") == absent.text
        ignored = ("date", "content-length")
        heads = [{k: v for k, v in a.headers.items() if k not in ignored} for a in answers]
        assert heads[0] == heads[1]


async def test_a_list_searches_only_below_what_is_permitted(
    start: Start, queue: WatchedQueue
) -> None:
    """A search among others' streams takes longer where there are some, and would tell of them."""
    await write(queue, *STREAMS)
    searched: list[str] = []
    inner = queue.streams

    def streams(tenant: str, prefix: str) -> Any:
        searched.append(prefix)
        return inner(tenant, prefix)

    queue.streams = streams  # type: ignore[method-assign, assignment]
    client = await start(own_chats)
    assert await listed(client, **{"X-User": "ada"}) == ["chats/ada/1", "chats/ada/2"]
    assert await listed(client, "/streams?prefix=chats/bob", **{"X-User": "ada"}) == []
    assert searched == ["chats/ada"]


async def test_a_function_that_says_yes_or_no_is_asked_for_each_stream(
    start: Start, queue: WatchedQueue
) -> None:
    """Where names do not show whose a stream is, the application looks it up."""
    await write(queue, *STREAMS)
    asked: list[str | None] = []
    owners = {"chats/ada/1": "ada", "chats/ada/2": "bob", "chats/bob/1": "ada"}

    async def authorize(request: Request, stream: StreamId | None) -> bool:
        asked.append(None if stream is None else stream.name)
        return stream is None or owners.get(stream.name) == user(request)

    client = await start(authorize)
    head = {"X-User": "ada"}
    assert await listed(client, **head) == ["chats/ada/1", "chats/bob/1"]
    assert sorted(asked, key=str) == sorted([None, *STREAMS], key=str)
    assert seen(await client.get("/streams/chats/ada/2", headers=head)) == ABSENT
    assert (await client.get("/streams/chats/bob/1", headers=head)).status_code == 200
    page = (await client.get("/streams?limit=1", headers=head)).json()
    assert (len(page["streams"]), page["is_complete"]) == (1, False)
    page = (await client.get("/streams?limit=2", headers=head)).json()
    assert (len(page["streams"]), page["is_complete"]) == (2, True)


@pytest.mark.parametrize("looks_at_the_stream", [True, False])
async def test_each_stream_of_a_connection_is_a_question_of_its_own(
    looks_at_the_stream: bool, start: Start, queue: WatchedQueue
) -> None:
    """One connection for many streams must not be a way around."""
    await write(queue, *STREAMS)

    def by_name(request: Request, stream: StreamId | None) -> Any:
        assert stream is not None
        if stream.name == "chats/ada/1":
            return Grant([permit("read", every=True)], expires_at=time.time() + 60)
        return stream.name == "chats/ada/2"

    client = await start(by_name if looks_at_the_stream else own_chats)
    query = "&".join(f"stream={each}" for each in (*STREAMS, "chats/ada/0"))
    head = {"X-User": "ada"}
    by_get = await client.get(f"/events?{query}", headers=head)
    body = {"streams": [*STREAMS, "chats/ada/0"]}
    by_post = await client.post("/events", json=body, headers=head)
    for answer in (by_get, by_post):
        assert "secret of chats/ada/1" in answer.text
        assert "secret of chats/ada/2" in answer.text
        assert "secret of chats/bob" not in answer.text
        assert "secret of chats/ada2" not in answer.text
        assert ("expires_in_seconds" in answer.text) == looks_at_the_stream
        frames = answer.text.split("\n\n")
        missing = [f for f in frames if "event: error" in f]
        assert len(missing) == 3
        assert all("stream_not_found" in f and "there is no stream" in f for f in missing)
    assert seen(await client.get("/events?stream=chats/bob/1", headers=head)) == ABSENT


async def test_a_prefix_finds_what_is_permitted(start: Start, queue: WatchedQueue) -> None:
    """Also what appears later; and what has to be asked for one by one is refused at once."""
    await write(queue, *STREAMS)
    client = await start(own_chats)
    head = {"X-User": "ada"}
    path = "/events?prefix=chats/&stream=chats/bob/1"
    async with aconnect_sse(client, "GET", path, headers=head) as source, asyncio.timeout(20):
        texts: list[str] = []
        async for event in source.aiter_sse():
            texts.append(event.data)
            if "secret of chats/ada/2" in event.data and "chats/ada/3" not in str(texts):
                await write(queue, "chats/bob/3", "chats/ada/3")
            if "secret of chats/ada/3" in event.data:
                break
    everything = "\n".join(texts)
    assert "secret of chats/ada/1" in everything
    assert "secret of chats/bob" not in everything
    assert "chats/bob/3" not in everything
    assert "chats/ada2" not in everything
    client = await start(lambda *_: True)
    answer = await client.get("/events?prefix=chats/")
    assert seen(answer) == FORBIDDEN
    assert "return permissions for None" in answer.json()["message"]
    client = await start(lambda _request, stream: stream is not None)
    assert seen(await client.get("/events?prefix=chats/")) == FORBIDDEN


async def test_no_for_a_list_is_refused(start: Start, queue: WatchedQueue) -> None:
    """An empty list would look like a user without streams."""
    await write(queue, "a")
    client = await start(lambda _request, stream: stream is not None)
    answer = await client.get("/streams")
    assert seen(answer) == FORBIDDEN
    assert (
        answer.json()["message"] == "the application does not permit this request to list streams"
    )
    assert (await client.get("/streams/a")).status_code == 200


async def test_yes_permits_no_more_than_the_gateway_does(start: Start, queue: WatchedQueue) -> None:
    """A hook that forgot about deleting must not open it."""
    await write(queue, "a")
    client = await start(lambda *_: True)
    assert "secret" in (await client.get("/events/a")).text
    for method, path in (("DELETE", "/streams/a"), ("POST", "/cancel/a")):
        answer = await client.request(method, path)
        assert seen(answer) == FORBIDDEN
        assert "the application does not permit" in answer.json()["message"]
    assert (await client.get("/streams/a")).status_code == 200


async def test_what_is_permitted_by_name_is_possible_without_tokens(
    start: Start, queue: WatchedQueue
) -> None:
    """An application with a login of its own needs no second one."""
    await write(queue, "mine/1", "theirs")
    client = await start(lambda *_: permit("delete", "cancel", prefix="mine"))
    assert (await client.delete("/streams/mine/1")).status_code == 204
    assert seen(await client.delete("/streams/theirs")) == ABSENT
    assert seen(await client.post("/cancel/mine/2")) == (409, "not_cancellable")
    assert seen(await client.get("/events/mine/2")) == FORBIDDEN
    assert seen(await client.post("/revocations")) == (501, "revocation_impossible")


async def test_a_closed_gateway_is_opened_by_its_application_only(
    start: Start, queue: WatchedQueue
) -> None:
    """`nothing` leaves to the hook what it names, and makes its `True` worthless."""
    await write(queue, "a")
    closed = OPEN.model_copy(update={"gateway_anonymous": "nothing"})
    client = await start(lambda _r, s: s is not None and permit("read", stream=s.name), closed)
    assert (await client.get("/streams/a")).status_code == 200
    client = await start(lambda *_: True, closed)
    assert seen(await client.get("/streams/a")) == ABSENT


async def test_yes_to_one_stream_is_no_right_on_another(queue: WatchedQueue) -> None:
    """Whoever writes another handler cannot use an answer for what was not asked."""
    app = create_app(queue, OPEN, authorize=lambda *_: True)
    request = Request({"type": "http", "method": "GET", "headers": [], "app": app})
    request_rights = await rights_of_request(request)
    stream, rights = await request_rights.on("a")
    assert rights.allow(Action.READ, stream)
    assert not rights.know(StreamId("default", "b"))
    assert not rights.allow(Action.LIST, StreamId("default", "a/b"))
    search = await request_rights.search()
    assert search.rights.allow(Action.LIST, stream)
    assert not search.rights.allow(Action.READ, stream)
    assert [each.allow(Action.READ, of) async for of, each in search.each([stream])] == [True]


async def test_other_routes_are_not_affected(start: Start) -> None:
    """A load balancer has no login; what it hears says nothing to strangers."""
    client = await start(lambda *_: False)
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    assert (await client.get("/readyz")).json() == {"status": "ok"}
    assert (await client.get("/")).status_code == 200
    assert (await client.get("/client.js")).status_code == 200
    assert (await client.get("/page/main.js")).status_code == 200


def test_a_gateway_with_an_application_is_not_open(
    queue: WatchedQueue, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning of an open gateway would be wrong, and soon be read by nobody."""
    create_app(queue, OPEN, authorize=own_chats)
    assert not [each for each in caplog.messages if "no issuer of tokens" in each]


async def test_pages_of_other_origins_change_nothing(start: Start, queue: WatchedQueue) -> None:
    """The function may decide by a cookie, which a browser sends from any page."""
    await write(queue, "a")
    client = await start(lambda *_: permit("delete", every=True))
    for head in (
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://evil.example", "Authorization": "Bearer x"},
        {"Origin": "http://127.0.0.1:1", "Sec-Fetch-Site": "same-site"},
    ):
        answer = await client.delete("/streams/a", headers=head)
        assert seen(answer) == (403, "origin_not_allowed")
    assert (await queue.describe(StreamId("default", "a"))).records
