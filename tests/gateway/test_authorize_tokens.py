"""Tokens, sessions and tenants where the application's own code permits requests."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from fastapi import HTTPException
from httpx_sse import aconnect_sse
from pydantic import SecretStr
from starlette.requests import Request

from streamq import Chunk, open_reader, open_writer
from streamq.access import Grant, new_secret, permit
from streamq.driver import StreamId
from streamq.gateway import create_app, token_rights
from streamq.gateway import serve as serve_app

from .authorizing import (
    ABSENT,
    FORBIDDEN,
    OPEN,
    WITH_TOKENS,
    Start,
    bearer,
    listed,
    seen,
    starting,
    user,
    write,
)
from .served import WatchedQueue, eventually


@pytest.fixture
async def start(queue: WatchedQueue) -> AsyncIterator[Start]:
    async with starting(queue) as start:
        yield start


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
