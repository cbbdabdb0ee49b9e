"""Requests that the application's own code permits, narrows or refuses."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import math
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, HTTPException
from httpx_sse import aconnect_sse
from pydantic import SecretStr
from starlette.requests import Request

from streamq import (
    Chunk,
    ConfigurationError,
    Settings,
    load_settings,
    open_reader,
    open_writer,
)
from streamq.access import Action, Grant, mint_token, new_secret, permit
from streamq.driver import StreamId
from streamq.gateway import Authorize, GatewayOptions, create_app, token_rights
from streamq.gateway import serve as serve_app
from streamq.gateway._request_rights import rights_of_request

from .served import WatchedQueue, eventually

OPEN = load_settings(backend="memory", retry_seconds=0.05)
WITH_TOKENS = OPEN.model_copy(update={"token_key": SecretStr(new_secret())})
ABSENT = (404, "stream_not_found")
FORBIDDEN = (403, "insufficient_scope")

Start = Callable[..., Any]


@pytest.fixture
async def start(queue: WatchedQueue) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def begin(
            authorize: Authorize, settings: Settings = OPEN, **options: Any
        ) -> httpx.AsyncClient:
            app = create_app(
                queue, settings, authorize=authorize, options=GatewayOptions(**options)
            )
            server = await stack.enter_async_context(serve_app(app))
            return await stack.enter_async_context(
                httpx.AsyncClient(base_url=server.url, timeout=10)
            )

        yield begin


def user(request: Request) -> str:
    return request.headers.get("x-user", "nobody")


def own_chats(request: Request, _stream: StreamId | None) -> Any:
    """Return what most applications would: the user's own streams, whichever is asked for."""
    return [permit("read", "list", prefix=f"chats/{user(request)}")]


def bearer(**of: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {mint_token(settings=WITH_TOKENS, **of)}"}


def seen(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json().get("error", "")


async def write(queue: WatchedQueue, *names: str, tenant: str = "default") -> None:
    settings = OPEN.model_copy(update={"tenant": tenant})
    for name in names:
        async with open_writer(name, queue=queue, settings=settings) as writer:
            await writer.send_chunk(f"secret of {name}")


async def listed(client: httpx.AsyncClient, path: str = "/streams", **headers: str) -> list[str]:
    answer = await client.get(path, headers=headers)
    assert answer.status_code == 200, answer.text
    return sorted(each["name"] for each in answer.json()["streams"])


STREAMS = ("chats/ada/1", "chats/ada/2", "chats/bob/1", "chats/ada2")
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


async def test_a_token_and_the_application_have_to_permit_it(
    start: Start, queue: WatchedQueue
) -> None:
    """Neither widens the other."""
    await write(queue, "a/1", "b/1")
    client = await start(lambda *_: [permit("read", "delete", "list", prefix="a")], WITH_TOKENS)
    assert seen(await client.get("/streams/a/1")) == (401, "token_required")
    everything = bearer(every=True, actions=["read", "list"])
    assert (await client.get("/streams/a/1", headers=everything)).status_code == 200
    assert seen(await client.get("/streams/b/1", headers=everything)) == ABSENT
    answer = await client.delete("/streams/a/1", headers=everything)
    assert seen(answer) == FORBIDDEN
    assert "token and application do not permit" in answer.json()["message"]
    assert await listed(client, **everything) == ["a/1"]
    narrow = bearer(prefix="b", actions=["read", "list"])
    assert seen(await client.get("/streams/a/1", headers=narrow)) == ABSENT
    assert seen(await client.get("/streams/b/1", headers=narrow)) == ABSENT
    assert await listed(client, **narrow) == []
    admin = bearer(every=True, actions=["admin"])
    revoked = await client.post("/revocations", headers=admin, json={"subject": "eve"})
    assert seen(revoked) == FORBIDDEN
    assert (await client.delete("/streams/a/1", headers=admin)).status_code == 204


async def test_yes_leaves_a_token_as_it_is(start: Start, queue: WatchedQueue) -> None:
    """Beside tokens the hook can be a check that most requests pass."""
    await write(queue, "a", "b")
    blocked = {"eve"}

    def authorize(request: Request, _stream: StreamId | None) -> bool:
        rights = token_rights(request)
        return rights is not None and rights.subject not in blocked

    client = await start(authorize, WITH_TOKENS)
    ada = bearer(every=True, actions=["read", "list", "admin"], subject="ada")
    eve = bearer(every=True, actions=["read", "list", "admin"], subject="eve")
    assert await listed(client, **ada) == ["a", "b"]
    revoked = await client.post("/revocations", headers=ada, json={"subject": "mallory"})
    assert revoked.status_code == 200
    assert seen(await client.get("/streams/a", headers=eve)) == ABSENT
    assert seen(await client.get("/streams", headers=eve)) == FORBIDDEN
    assert seen(await client.post("/revocations", headers=eve, json={})) == FORBIDDEN


async def test_a_ticket_and_a_cookie_say_whose_they_are(start: Start, queue: WatchedQueue) -> None:
    """An EventSource has no header that the application could look at."""
    await write(queue, "a")
    asked: list[str | None] = []

    def authorize(request: Request, _stream: StreamId | None) -> bool:
        rights = token_rights(request)
        asked.append(None if rights is None else rights.subject)
        return rights is not None and rights.subject == "ada"

    tickets = WITH_TOKENS.model_copy(update={"gateway_ticket_key": SecretStr(new_secret())})
    client = await start(authorize, tickets)
    token = bearer(stream="a", subject="ada")
    ticket = (await client.post("/ticket/a", headers=token)).json()["path"]
    assert "secret" in (await client.get(f"/{ticket}")).text
    cookie = {"Cookie": "streamq=" + token["Authorization"].removeprefix("Bearer ")}
    own = {"Sec-Fetch-Site": "same-origin"}
    assert "secret" in (await client.get("/events/a", headers=cookie | own)).text
    assert asked == ["ada"] * 3


async def test_a_ticket_is_of_a_token(start: Start) -> None:
    """Without tokens nobody could verify one; the cookie of the application does the same."""
    tickets = OPEN.model_copy(update={"gateway_ticket_key": SecretStr(new_secret())})
    client = await start(lambda *_: Grant(True, subject="ada"), tickets)
    assert seen(await client.post("/ticket/a")) == (401, "token_required")


async def test_the_application_says_the_tenant(start: Start, queue: WatchedQueue) -> None:
    """Users of two companies reach the same gateway, and neither sees the other's streams."""
    await write(queue, "chats/1", tenant="acme")
    await write(queue, "chats/1", "chats/2", tenant="globex")
    await write(queue, "chats/3")

    def authorize(request: Request, _stream: StreamId | None) -> Grant:
        return Grant([permit("read", "list", prefix="chats")], tenant=user(request))

    client = await start(authorize)
    head = {"X-User": "acme"}
    assert await listed(client, **head) == ["chats/1"]
    assert await listed(client, "/t/acme/streams", **head) == ["chats/1"]
    assert await listed(client, "/t/globex/streams", **head) == []
    assert (await client.get("/events/chats/1", headers=head)).status_code == 200
    assert (await client.get("/t/acme/events/chats/1", headers=head)).status_code == 200
    for path in ("/events/chats/2", "/events/chats/3", "/t/globex/events/chats/1"):
        assert seen(await client.get(path, headers=head)) == ABSENT, path
    assert seen(await client.get("/t/default/story/chats/3", headers=head)) == ABSENT
    answer = await client.get("/streams/chats/1", headers=head)
    assert answer.json()["tenant"] == "acme"


async def test_yes_is_for_the_gateways_own_tenant(start: Start, queue: WatchedQueue) -> None:
    """A hook that does not think of tenants opens no other one."""
    await write(queue, "a", tenant="other")
    for answer in (True, permit("read", "list", every=True)):
        client = await start(lambda *_, answer=answer: answer)
        assert seen(await client.get("/t/other/streams/a")) == ABSENT
        assert await listed(client, "/t/other/streams") == []
    client = await start(lambda *_: Grant(True, tenant="other"))
    assert await listed(client) == await listed(client, "/t/other/streams") == ["a"]


async def test_a_tenant_that_is_not_the_tokens_permits_nothing(
    start: Start, queue: WatchedQueue
) -> None:
    """The token is bound to its tenant, whatever the application says."""
    await write(queue, "a")
    await write(queue, "a", tenant="other")
    client = await start(lambda *_: Grant(True, tenant="other"), WITH_TOKENS)
    token = bearer(every=True, actions=["read", "list"])
    for path in ("/streams/a", "/t/other/streams/a", "/t/default/streams/a"):
        assert seen(await client.get(path, headers=token)) == ABSENT
    assert seen(await client.get("/streams", headers=token)) == FORBIDDEN
    mine = bearer(every=True, actions=["read"], tenant="other")
    assert (await client.get("/streams/a", headers=mine)).json()["tenant"] == "other"


async def test_an_application_with_tenants_names_those_that_cancel(
    start: Start, queue: WatchedQueue
) -> None:
    """A workflow has no tenant: otherwise one company could stop what another one runs."""
    name = "chat-7/11111111-2222-3333-4444-555555555555/main"
    await write(queue, name)
    given = permit("cancel", "read", every=True)
    client = await start(lambda *_: Grant([given], tenant="default"))
    assert seen(await client.post(f"/cancel/{name}")) == (501, "cancel_unavailable")
    shown = (await client.get(f"/streams/{name}")).json()["actions"]
    assert shown == ["read", "describe"]  # no page has a button for it
    await queue.delete(StreamId("default", name))
    settings = OPEN.model_copy(update={"temporal_address": "127.0.0.1:1"})
    client = await start(lambda *_: given, settings)
    assert seen(await client.post(f"/cancel/{name}")) == (503, "temporal_unavailable")


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


async def test_a_connection_ends_with_the_permission(start: Start, queue: WatchedQueue) -> None:
    """A session that ends must not leave a stream open that was begun in it."""
    ends: list[float] = []

    def authorize(_request: Request, stream: StreamId | None) -> Grant:
        ends.append(time.time() + 1.0)
        assert stream is not None
        return Grant([permit("read", stream=stream.name)], expires_at=ends[-1])

    client = await start(authorize)
    async with open_writer("a", queue=queue) as writer:
        await writer.send_chunk("x")
        await writer.flush()
        async with aconnect_sse(client, "GET", "/events/a") as source:
            events = [each async for each in source.aiter_sse() if each.data]
    assert time.time() >= ends[0]
    assert [each.event for each in events] == ["token", "chunk", "reconnect"]
    assert 0 < events[0].json()["expires_in_seconds"] <= 1.0
    assert events[-1].json()["reason"] == "token_expired"


@pytest.mark.parametrize("sooner", ["token", "application"])
async def test_the_earlier_end_counts(sooner: str, start: Start, queue: WatchedQueue) -> None:
    """A long session makes no token longer, and a long token no session."""
    short, long = 60, 600
    granted = short if sooner == "application" else long
    lifetime = timedelta(seconds=short if sooner == "token" else long)
    client = await start(lambda *_: Grant(True, expires_at=time.time() + granted), WITH_TOKENS)
    await write(queue, "a")
    answer = await client.get("/events/a", headers=bearer(stream="a", lifetime=lifetime))
    data = answer.text.partition("event: token\ndata: ")[2].partition("\n")[0]
    assert 0 < json.loads(data)["expires_in_seconds"] <= short


async def test_a_permission_that_has_ended_is_401(start: Start, queue: WatchedQueue) -> None:
    """A client would otherwise connect again without end, and get nothing each time."""
    await write(queue, "a")
    client = await start(lambda *_: Grant(True, expires_at=time.time() - 1))
    for path in ("/events/a", "/streams"):
        assert seen(await client.get(path)) == (401, "invalid_token")


async def test_the_subject_counts_for_quotas(queue: WatchedQueue, tmp_path: Path) -> None:
    """Users of an application have quotas as holders of tokens do."""
    quotas = tmp_path / "quotas.toml"
    quotas.write_text("[tenants.default.subjects.ada]\nconnections = 1\n")
    settings = OPEN.model_copy(update={"quotas": quotas})
    app = create_app(
        queue, settings, authorize=lambda request, _: Grant(True, subject=user(request))
    )
    async with (
        serve_app(app) as server,
        httpx.AsyncClient(base_url=server.url) as client,
        open_writer("a", queue=queue) as writer,
    ):
        await writer.send_chunk("x")
        await writer.flush()
        ada, bob = {"X-User": "ada"}, {"X-User": "bob"}
        async with aconnect_sse(client, "GET", "/events/a", headers=ada) as source:
            assert source.response.status_code == 200
            assert seen(await client.get("/events/a", headers=ada)) == (429, "quota")
            async with aconnect_sse(client, "GET", "/events/a", headers=bob) as other:
                assert other.response.status_code == 200


@pytest.mark.parametrize("kind", ["sync", "async", "partial", "object", "plain around async"])
async def test_every_kind_of_function(kind: str, start: Start, queue: WatchedQueue) -> None:
    """Also one that is made from another: a mistake here would be a request without a check."""
    await write(queue, "mine", "theirs")

    def plain(request: Request, stream: StreamId | None) -> Any:
        assert threading.current_thread() is not threading.main_thread()
        return permit("read", stream=user(request))

    async def asynchronous(request: Request, stream: StreamId | None) -> Any:
        await asyncio.sleep(0)
        return permit("read", stream=user(request))

    async def with_more(more: str, request: Request, stream: StreamId | None) -> Any:
        return permit(more, stream=user(request))

    class Checks:
        async def __call__(self, request: Request, stream: StreamId | None) -> Any:
            return permit("read", stream=user(request))

    def wrapped(request: Request, stream: StreamId | None) -> Any:
        return asynchronous(request, stream)

    functions: dict[str, Authorize] = {
        "sync": plain,
        "async": asynchronous,
        "partial": functools.partial(with_more, "read"),
        "object": Checks(),
        "plain around async": wrapped,
    }
    client = await start(functions[kind])
    head = {"X-User": "mine"}
    assert (await client.get("/streams/mine", headers=head)).status_code == 200
    assert seen(await client.get("/streams/theirs", headers=head)) == ABSENT


async def test_a_function_that_blocks_delays_no_reader(start: Start, queue: WatchedQueue) -> None:
    """A query to a database in a plain function must not hold up the live streams."""
    entered, proceed = threading.Event(), threading.Event()

    def authorize(_request: Request, stream: StreamId | None) -> bool:
        if stream is not None and stream.name == "slow":
            entered.set()
            assert proceed.wait(20)
        return True

    await write(queue, "slow", "quick")
    client = await start(authorize)
    waiting = asyncio.create_task(client.get("/streams/slow"))
    await eventually(entered.is_set)
    assert (await client.get("/streams/quick")).status_code == 200
    assert not waiting.done()
    proceed.set()
    assert (await waiting).status_code == 200


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_function_that_hangs_is_bounded(
    is_async: bool, start: Start, queue: WatchedQueue
) -> None:
    """A database that is away must not collect requests without end."""
    await write(queue, "a")
    release = threading.Event()

    async def hang(_request: Request, _stream: StreamId | None) -> bool:
        await asyncio.Event().wait()
        return True

    def block(_request: Request, _stream: StreamId | None) -> bool:
        return release.wait(20)

    client = await start(hang if is_async else block, authorize_seconds=0.1)
    try:
        for path in ("/events/a", "/streams"):
            answer = await client.get(path)
            assert seen(answer) == (503, "authorize_timeout")
            assert "Retry-After" in answer.headers
    finally:
        release.set()


async def test_a_list_of_many_questions_is_bounded(start: Start, queue: WatchedQueue) -> None:
    """Each question in time may still be too long together."""
    await write(queue, *(f"s/{i}" for i in range(20)))

    async def authorize(_request: Request, stream: StreamId | None) -> bool:
        if stream is not None:
            await asyncio.sleep(0.3)
        return True

    client = await start(authorize, authorize_seconds=0.5)
    assert seen(await client.get("/streams")) == (503, "authorize_timeout")
    assert len(await listed(client, "/streams?limit=5")) == 5


async def test_an_http_exception_is_the_answer(start: Start) -> None:
    """The application decides what somebody who is not logged in hears."""

    def authorize(_request: Request, _stream: StreamId | None) -> bool:
        raise HTTPException(401, "log in first", headers={"WWW-Authenticate": "Cookie"})

    client = await start(authorize)
    for path in ("/events/a", "/streams", "/t/other/story/a"):
        answer = await client.get(path)
        assert seen(answer) == (401, "unauthorized")
        assert answer.json()["message"] == "log in first"
        assert answer.headers["WWW-Authenticate"] == "Cookie"
        assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("kind", ["raises", "None", "text", "list", "subclass"])
async def test_a_function_that_fails_opens_nothing(
    kind: str, start: Start, queue: WatchedQueue, caplog: pytest.LogCaptureFixture
) -> None:
    """Its text may have secrets; the log has it once, with the line of the code."""
    await write(queue, "a")

    def authorize(_request: Request, _stream: StreamId | None) -> Any:
        if kind == "raises":
            raise RuntimeError("password hunter2")
        return {"None": None, "text": "hunter2", "list": ["hunter2"], "subclass": 1}[kind]

    client = await start(authorize)
    for path in ("/events/a", "/streams"):
        caplog.clear()
        answer = await client.get(path)
        assert seen(answer) == (500, "authorize_failed")
        assert "hunter2" not in answer.text
        (record,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
        assert "create_app(authorize=...)" in record.getMessage()
        if kind == "raises":
            assert "hunter2" in caplog.text  # with its traceback
            assert "test_authorize.py" in caplog.text
        else:
            assert "returns True, False, permissions" in record.getMessage()


async def test_a_python_reader_brings_the_applications_own_tokens(
    start: Start, queue: WatchedQueue
) -> None:
    """They are as good as ours: refused ones and ones that end are renewed, and nothing is lost."""
    ends: dict[str, float] = {}

    def authorize(request: Request, _stream: StreamId | None) -> Grant:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token == "token-0" or ends.get(token, math.inf) < time.time():
            raise HTTPException(401, "log in again")
        ends.setdefault(token, time.time() + 0.5)
        return Grant([permit("read", prefix="chats")], expires_at=ends[token], tenant="acme")

    given: list[str] = []

    def token() -> str:
        given.append(f"token-{len(given)}")
        return given[-1]

    client = await start(authorize)
    acme = OPEN.model_copy(update={"tenant": "acme"})
    async with open_writer("chats/1", queue=queue, settings=acme) as writer:
        await writer.send_chunk(0)
        await writer.flush()
        values = []
        url = f"{client.base_url}/events/chats/1"
        async with open_reader(url, token=token, settings=OPEN) as reader, asyncio.timeout(20):
            async for event in reader:
                assert isinstance(event, Chunk)
                values.append(event.value)
                if len(values) == 4:
                    break
                await eventually(lambda: ends[given[-1]] < time.time())
                await writer.send_chunk(len(values))
                await writer.flush()
    assert values == [0, 1, 2, 3]
    assert len(given) >= 4


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


def test_what_cannot_be_a_function_is_refused(queue: WatchedQueue) -> None:
    """Before the first request, which would otherwise be answered with 500."""
    with pytest.raises(ConfigurationError, match="authorize is bool"):
        create_app(queue, OPEN, authorize=True)  # type: ignore[arg-type]
    trusting = OPEN.model_copy(update={"gateway_trust_tenants": True})
    with pytest.raises(ConfigurationError, match=r"Grant\(tenant=\.\.\.\)"):
        create_app(queue, trusting, authorize=own_chats)


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


async def test_in_fastapi_the_function_sees_what_middleware_has_found(
    queue: WatchedQueue,
) -> None:
    """A login by middleware is at hand: the request is that of the parent."""
    await write(queue, *STREAMS)

    def authorize(request: Request, _stream: StreamId | None) -> Any:
        return [permit("read", "list", prefix=f"chats/{request.state.user}")]

    app = FastAPI()
    app.mount("/live", create_app(queue, OPEN, authorize=authorize))

    @app.middleware("http")
    async def login(request: Request, call_next: Any) -> Any:
        request.state.user = user(request)
        return await call_next(request)

    async with serve_app(app) as server, httpx.AsyncClient(base_url=server.url) as client:
        assert await listed(client, "/live/streams", **{"X-User": "bob"}) == ["chats/bob/1"]
        answer = await client.get("/live/events/chats/bob/1", headers={"X-User": "bob"})
        assert "secret of chats/bob/1" in answer.text
        answer = await client.get("/live/events/chats/bob/1", headers={"X-User": "ada"})
        assert seen(answer) == ABSENT
