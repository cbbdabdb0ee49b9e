"""Tokens that were revoked: refused by every replica, and their connections ended."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import aconnect_sse
from joserfc.jwk import KeySet
from tests.access.issuing import AUDIENCE, EC, NAME

from streamq import CapabilityError, ConfigurationError, Settings, load_settings, open_writer
from streamq._events import SYSTEM_TENANT
from streamq.access import mint_token, new_secret, revoke_subject, revoke_token
from streamq.access._revocations import Revocation
from streamq.gateway import create_app, serve
from streamq.testing import Block, Call, FaultProxy, FaultyQueue, Pass
from streamq_redis.embedded import EmbeddedRedis

from .replicas import LIMIT, SECRET, bearer, claim, opened, replica, settings_of, stream, token_of
from .served import WatchedQueue, eventually


@pytest.fixture
def settings(shared_settings: Settings) -> Settings:
    return shared_settings


async def test_a_revoked_token_ends_on_every_replica(settings: Settings) -> None:
    """Its holder is out at once, wherever he is connected; others do not notice."""
    token, other = token_of(settings, subject="ada"), token_of(settings, subject="ada")
    async with stream(settings), replica(settings) as one, replica(settings) as two:
        async with one.watching(token) as first, two.watching(token) as second:
            await revoke_token(token, settings=settings)
            assert await first() == await second() == "revoked"
        for each in (one, two):
            answer = await each.becomes(401, token)
            assert answer.json() == {
                "error": "invalid_token",
                "message": "the token has been revoked",
            }
            assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
            assert await each.status(token, "/streams") == 401
            assert await each.status(other) == 200
        async with replica(settings) as later:
            assert (await later.client.get("/readyz")).status_code == 200
            assert await later.status(token) == 401
            assert await later.status(other) == 200


async def test_a_ticket_and_a_cookie_end_with_their_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are made from it, and a browser would go on with them."""
    monkeypatch.setenv("STREAMQ_SQLITE_PATH", str(tmp_path / "streams.db"))
    settings = settings_of("sqlite", gateway_ticket_key=new_secret())
    token = token_of(settings)
    async with stream(settings), replica(settings) as one:
        given = await one.client.post("/ticket/a", headers=bearer(token))
        path = f"/{given.json()['path']}"
        begun = asyncio.Event()

        async def last() -> str:
            name = ""
            async with aconnect_sse(one.client, "GET", path) as source:
                async for event in source.aiter_sse():
                    name = event.event
                    begun.set()
            return name

        reading = asyncio.create_task(last())
        page = {"Sec-Fetch-Site": "same-origin"}
        await one.client.post("/session", headers=bearer(token))
        assert (await one.client.get("/streams/a", headers=page)).status_code == 200
        async with asyncio.timeout(LIMIT):
            await begun.wait()
            await revoke_token(token, settings=settings)
            assert await reading == "revoked"
        for answer in (
            await one.client.get(path),
            await one.client.get("/streams/a", headers=page),
        ):
            assert (answer.status_code, answer.json()["error"]) == (401, "invalid_token")
            assert "revoked" in answer.json()["message"]


async def test_what_a_subject_got_before_a_moment_ends(settings: Settings) -> None:
    """A stolen device: all its tokens at once, by whatever they permit; later ones are new."""
    tokens = [token_of(settings, subject="ada"), token_of(settings, subject="ada")]
    other = token_of(settings, subject="bob")
    async with stream(settings), replica(settings) as one, replica(settings) as two:
        async with one.watching(tokens[0]) as first, two.watching(tokens[1]) as second:
            await revoke_subject("ada", settings=settings)
            assert await first() == await second() == "revoked"
        hasty = token_of(settings, subject="ada")  # of the same seconds: nobody can tell
        assert await one.status(hasty) == 401
        early = datetime.fromtimestamp(claim(other, "iat"), UTC)
        await revoke_subject("bob", before=early, settings=settings)  # not before itself
        for each in (one, two):
            for token in tokens:
                assert await each.status(token) == 401
            assert await each.status(other) == 200


async def test_a_token_whose_issuer_is_ahead_is_among_them(
    queue: WatchedQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is accepted although it is dated in the future, so that it has to end, too."""
    settings = settings_of("memory")
    app = create_app(queue, settings)
    async with AsyncExitStack() as stack:
        client = await opened(app, stack)
        there = time.time() + 4.0
        with monkeypatch.context() as clock:
            clock.setattr("streamq.access._minting.time.time", lambda: there)
            ahead = token_of(settings, subject="ada")
        other = token_of(settings, subject="bob")
        admin = token_of(settings, subject="root", actions=["admin"])
        last = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)

        async def status(token: str) -> int:
            return (await client.get("/streams/a", headers=bearer(token))).status_code

        assert claim(ahead, "iat") > claim(other, "iat") + 2
        assert await status(ahead) == await status(other) == 404
        body = {"subject": "ada"}
        answer = await client.post("/revocations", json=body, headers=bearer(admin))
        assert answer.status_code == 200
        assert await status(ahead) == 401
        assert await status(other) == 404
        ever = await revoke_subject("bob", before=last, queue=queue, settings=settings)
        assert ever.forget_at == last.timestamp()  # later than that is no moment
        async with asyncio.timeout(LIMIT):
            while True:
                if await status(other) == 401:
                    break
                await asyncio.sleep(0.02)


async def test_an_administrator_revokes_by_http(settings: Settings) -> None:
    """In its own tenant only, whatever the body says."""
    admin = token_of(settings, actions=["admin"])
    token, foreign = token_of(settings), token_of(settings, tenant="acme")
    async with stream(settings), replica(settings) as one, replica(settings) as two:
        client = one.client

        async def post(body: Any, by: str = admin) -> httpx.Response:
            return await client.post("/revocations", json=body, headers=bearer(by))

        answer = await post({"jti": claim(token, "jti"), "expires_at": claim(token, "exp")})
        assert answer.json() == {"revoked": True, "effective_within_seconds": 2.0}
        assert await one.status(token) == 401
        await two.becomes(401, token)
        assert (await post({"jti": claim(foreign, "jti")})).status_code == 200
        assert (await post({"jti": "x"}, token_of(settings))).status_code == 403
        narrow = mint_token(workflow="w", actions=["admin"], settings=settings)
        assert (await post({"jti": "x"}, narrow)).status_code == 403
        assert (await client.post("/revocations", json={"jti": "x"})).status_code == 401
        bodies: list[Any] = [
            {},
            [],
            {"jti": 1},
            {"jti": "x", "subject": "y"},
            {"jti": "x", "before": 1},
            {"subject": "y", "before": 10**400},
            {"subject": "y", "before": -1},
            {"subject": "y", "before": True},
            {"jti": "x", "expires_at": 10**400},
            {"jti": "x", "expires_at": 1},
        ]
        for body in bodies:
            assert (await post(body)).json()["error"] == "bad_request"
        for text in ('{"subject": "y", "before": 1e999}', '{"subject": "y", "before": NaN}'):
            answer = await client.post("/revocations", content=text, headers=bearer(admin))
            assert answer.json()["error"] == "bad_request"
        assert (await post({"jti": "x", "tenant": "acme"})).json()["error"] == "bad_request"
        refused = await post({"jti": "x", "issuer": "https://nobody.example/"})
        assert refused.status_code == 400
        assert await one.status(foreign) == 404  # which is what its own tenant has of this name


async def test_a_replica_that_is_cut_off_refuses_and_says_so(
    redis: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot know whether a token was revoked meanwhile; and it recovers by itself."""
    host, port = redis.address.rsplit(":", 1)
    monkeypatch.setenv("STREAMQ_REDIS_KEY_PREFIX", f"r{uuid.uuid4().hex}")
    monkeypatch.setenv("STREAMQ_REDIS_URL", redis.url)
    direct = settings_of("redis")
    async with FaultProxy(host, int(port)) as proxy, AsyncExitStack() as stack:
        await stack.enter_async_context(stream(direct))
        monkeypatch.setenv("STREAMQ_REDIS_URL", f"redis://{proxy.address}/0")
        limited = settings_of("redis", gateway_revocation_seconds=1.0)
        one = await stack.enter_async_context(replica(limited))
        token, other = token_of(direct), token_of(direct)
        last = await stack.enter_async_context(one.watching(other))
        assert await one.status(token) == 200
        proxy.hold()
        monkeypatch.setenv("STREAMQ_REDIS_URL", redis.url)
        await revoke_token(token, settings=direct)
        assert await last() == "reconnect"
        for path in ("/streams/a", "/streams/a/events", "/readyz"):
            answer = await one.client.get(path, headers=bearer(token))
            assert (answer.status_code, answer.json()["error"]) == (503, "revocations_unknown")
            assert "Retry-After" in answer.headers
        proxy.release()
        await one.becomes(401, token)
        assert await one.status(other) == 200
        assert (await one.client.get("/readyz")).status_code == 200


def name_of(call: Call) -> str:
    return "" if call.stream is None else call.stream.name


async def last_event(client: httpx.AsyncClient, token: str) -> tuple[str, str]:
    """Read the stream ``a`` until the connection ends; return the last event."""
    last = "", ""
    async with asyncio.timeout(LIMIT):
        async with aconnect_sse(client, "GET", "/events/a", headers=bearer(token)) as source:
            async for event in source.aiter_sse():
                last = event.event, event.data
    return last


async def test_a_connection_that_begins_while_the_news_gets_old_ends(queue: WatchedQueue) -> None:
    """Its request was checked before; nothing else would end it until its token ends."""
    settings = settings_of("memory", gateway_revocation_seconds=1.0)
    token = token_of(settings)
    async with AsyncExitStack() as stack:
        writer = await stack.enter_async_context(open_writer("a", queue=queue, settings=settings))
        await writer.send_chunk("hello")
        await writer.flush()
        app = create_app(queue, settings)
        client = await opened(app, stack)
        revocations = app.state.gateway.revocations
        await revocations.check_known()
        looking, reading = Block(), Block()
        queue.always("describe", lambda call: looking if name_of(call) == "a" else Pass())
        begun = asyncio.create_task(last_event(client, token))
        await looking.reached()
        queue.always("read", reading)
        queue.always("streams", reading)
        async with asyncio.timeout(LIMIT):
            while True:
                if (await client.get("/readyz")).status_code == 503:
                    break
                await asyncio.sleep(0.05)
        queue.always("read", lambda call: Pass() if name_of(call) == "a" else reading)
        looking.release()
        name, data = await begun
        assert name == "reconnect"
        assert json.loads(data)["reason"] == "revocations_unknown"
        reading.release()


async def test_a_machine_that_slept_ends_its_connections(
    queue: WatchedQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Timers have stood still meanwhile, and the backend may be away."""
    settings = settings_of("memory")
    token = token_of(settings)
    async with AsyncExitStack() as stack:
        writer = await stack.enter_async_context(open_writer("a", queue=queue, settings=settings))
        await writer.send_chunk("hello")
        await writer.flush()
        reading = Block()
        queue.always(
            "read", lambda call: reading if name_of(call).startswith("revocations/") else Pass()
        )
        app = create_app(queue, settings)
        client = await opened(app, stack)
        begun = asyncio.create_task(last_event(client, token))
        await reading.reached()
        await eventually(lambda: bool(app.state.gateway.statistics().connections))
        later = time.time() + 120
        monkeypatch.setattr("streamq.gateway._revocations.time.time", lambda: later)
        name, data = await begun
        assert name == "reconnect"
        assert json.loads(data)["reason"] == "revocations_unknown"
        reading.release()


async def test_what_would_revoke_nothing_is_refused(tmp_path: Path, queue: WatchedQueue) -> None:
    """Whoever revokes goes away believing that a stolen token has ended."""
    keys = KeySet([EC]).as_dict(private=False)
    (tmp_path / "keys.json").write_text(json.dumps(keys))
    (tmp_path / "issuers.toml").write_text(
        f'[[issuer]]\nissuer = "{NAME}"\naudience = "{AUDIENCE}"\njwks_file = "keys.json"\n'
        'algorithms = ["ES256"]\ntenant = "acme"\n'
    )
    issued = load_settings(backend="memory", token_issuers=tmp_path / "issuers.toml")
    ours, nobodys = settings_of("memory"), load_settings(backend="memory")
    token = token_of(ours)
    beside: list[dict[str, Any]] = [
        {"issuer": "streamq"},
        {"tenant": "acme"},
        {"expires_at": datetime.now(UTC)},
    ]
    for given in beside:
        with pytest.raises(ConfigurationError, match="the token states"):
            await revoke_token(token, queue=queue, settings=ours, **given)
    calls: list[Callable[..., Awaitable[Revocation]]] = [
        partial(revoke_token, token_id="x", queue=queue),
        partial(revoke_subject, "ada", queue=queue),
    ]
    for call in calls:
        with pytest.raises(ConfigurationError, match="no issuer is configured"):
            await call(settings=nobodys)
        with pytest.raises(ConfigurationError, match="makes no tokens of tenant 'default'"):
            await call(settings=issued, tenant="default")
        revoked = await call(settings=issued)
        assert revoked.concerns.endswith(f", tenant acme, issuer {NAME}")
        assert (await call(settings=issued, tenant="acme")).key == revoked.key
        assert (await call(settings=nobodys, issuer=NAME, tenant="acme")).key == revoked.key
    stored = [each async for each in queue.streams(SYSTEM_TENANT)]
    assert len(stored) == 1
    read = await queue.read(stored[0].stream, "", max_records=99, max_bytes=10**6, max_wait=0.0)
    assert not any(b"ada" in each.data or b"acme" in each.data for each in read)


async def test_without_replay_tokens_work_and_are_not_revoked(queue: WatchedQueue) -> None:
    """There no gateway could read all of them; whoever revokes hears it."""
    settings = load_settings(backend="memory", token_key=SECRET)
    taking = FaultyQueue(queue, capabilities=replace(queue.capabilities, replay=False))
    app = create_app(taking, settings)
    async with serve(app) as server, httpx.AsyncClient(base_url=server.url) as client:
        admin = token_of(settings, actions=["admin"])
        assert (await client.get("/streams", headers=bearer(admin))).status_code == 200
        assert (await client.get("/readyz")).status_code == 200
        body = {"jti": "x"}
        answer = await client.post("/revocations", json=body, headers=bearer(admin))
        assert (answer.status_code, answer.json()["error"]) == (501, "revocation_impossible")
        assert "no replay" in answer.json()["message"]
    with pytest.raises(CapabilityError, match="no replay"):
        await revoke_token(token_id="x", queue=taking, settings=settings)
    with pytest.raises(ConfigurationError, match="this process only"):
        await revoke_token(token_id="x", settings=settings)


async def test_without_tokens_there_is_nothing_to_revoke(queue: WatchedQueue) -> None:
    """And everybody may read all, so that the answer has to say what is missing."""
    app = create_app(queue, load_settings(backend="memory"))
    async with serve(app) as server, httpx.AsyncClient(base_url=server.url) as client:
        answer = await client.post("/revocations", json={"jti": "x"})
    assert (answer.status_code, answer.json()["error"]) == (501, "revocation_impossible")
    assert "configure a key" in answer.json()["message"]
