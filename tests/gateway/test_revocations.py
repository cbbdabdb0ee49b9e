"""Tokens that were revoked: refused by every replica, and their connections ended."""

from __future__ import annotations

import asyncio
import base64
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import aconnect_sse
from joserfc.jwk import KeySet
from tests.access.issuing import AUDIENCE, EC, NAME

from streamq import (
    CapabilityError,
    ConfigurationError,
    Settings,
    StreamId,
    erase_streams,
    load_settings,
    open_queue,
    open_reader,
    open_writer,
)
from streamq._events import SYSTEM_TENANT
from streamq.access import mint_token, new_secret, revoke_subject, revoke_token
from streamq.access._revocation_log import RevocationLog
from streamq.access._revocations import Revocation, RevokedTokens, token_key
from streamq.driver import Entry
from streamq.gateway import GatewayOptions, GatewayServer, create_app, serve
from streamq.testing import Block, Call, FaultProxy, FaultyQueue, Pass
from streamq_redis.embedded import EmbeddedRedis

from .served import WatchedQueue, eventually

_SECRET = new_secret()
_LIMIT = 20.0


@pytest.fixture(scope="module")
def redis() -> Any:
    with EmbeddedRedis() as server:
        yield server


@pytest.fixture(params=["sqlite", "redis"])
def settings(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """A backend that two gateways share."""
    backend = request.param
    if backend == "redis":
        server: EmbeddedRedis = request.getfixturevalue("redis")
        monkeypatch.setenv("STREAMQ_REDIS_URL", server.url)
        monkeypatch.setenv("STREAMQ_REDIS_KEY_PREFIX", f"r{uuid.uuid4().hex}")
    monkeypatch.setenv("STREAMQ_SQLITE_PATH", str(tmp_path / "streams.db"))
    return settings_of(backend)


def settings_of(backend: str, **changed: Any) -> Settings:
    return load_settings(**{"backend": backend, "token_key": _SECRET, **changed})


class Replica:
    """A real server of its own queue."""

    def __init__(self, server: GatewayServer, client: httpx.AsyncClient) -> None:
        self.server = server
        self.client = client

    async def status(self, token: str, path: str = "/streams/a") -> int:
        return (await self.client.get(path, headers=bearer(token))).status_code

    async def becomes(self, expected: int, token: str) -> httpx.Response:
        async with asyncio.timeout(_LIMIT):
            while True:
                answer = await self.client.get("/streams/a", headers=bearer(token))
                if answer.status_code == expected:
                    return answer
                await asyncio.sleep(0.02)

    @asynccontextmanager
    async def watching(self, token: str) -> AsyncIterator[Callable[[], Awaitable[str]]]:
        """Open the stream ``a`` and yield a function that waits for the last event."""
        headers = bearer(token)
        async with aconnect_sse(self.client, "GET", "/streams/a/events", headers=headers) as source:
            events = source.aiter_sse()
            async for event in events:
                if event.event == "chunk":
                    break

            async def last() -> str:
                name = ""
                async with asyncio.timeout(_LIMIT):
                    async for event in events:
                        name = event.event
                return name

            yield last


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@asynccontextmanager
async def replica(settings: Settings) -> AsyncIterator[Replica]:
    async with (
        serve(create_app(settings=settings)) as server,
        httpx.AsyncClient(base_url=server.url, timeout=20) as client,
    ):
        yield Replica(server, client)


def token_of(settings: Settings, **given: Any) -> str:
    return mint_token(every=True, settings=settings, **given)


def claim(token: str, name: str) -> Any:
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))[name]


@asynccontextmanager
async def stream(settings: Settings) -> AsyncIterator[None]:
    """Keep a stream ``a`` that has begun and does not end."""
    async with open_writer("a", settings=settings) as writer:
        await writer.send_chunk("hello")
        await writer.flush()
        yield


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
        async with asyncio.timeout(_LIMIT):
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
        async with asyncio.timeout(_LIMIT):
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


async def opened(app: Any, stack: AsyncExitStack) -> httpx.AsyncClient:
    server = await stack.enter_async_context(serve(app))
    client = httpx.AsyncClient(base_url=server.url, timeout=_LIMIT)
    return await stack.enter_async_context(client)


def name_of(call: Call) -> str:
    return "" if call.stream is None else call.stream.name


async def last_event(client: httpx.AsyncClient, token: str) -> tuple[str, str]:
    """Read the stream ``a`` until the connection ends; return the last event."""
    last = "", ""
    async with asyncio.timeout(_LIMIT):
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
        async with asyncio.timeout(_LIMIT):
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


async def test_revoking_costs_the_same_however_much_was_revoked(queue: WatchedQueue) -> None:
    """One tenant's administrator would otherwise delay all that others read."""
    settings = settings_of("memory")
    admin = token_of(settings, actions=["admin"])
    async with AsyncExitStack() as stack:
        log = RevocationLog(queue, settings)
        for index in range(300):
            await log.add(Revocation(key=f"{index:064x}", forget_at=9e9))
        client = await opened(create_app(queue, settings), stack)
        assert (await client.get("/readyz")).status_code == 200
        read = queue.records_read
        for index in range(5):
            body = {"jti": f"token-{index}"}
            answer = await client.post("/revocations", json=body, headers=bearer(admin))
            assert answer.status_code == 200
        # Each is read back, and read by the gateway that waits for it.
        assert queue.records_read - read < 50


async def test_revocations_take_turns(queue: WatchedQueue) -> None:
    """As all that asks the backend for a client."""
    settings = settings_of("memory")
    admin = token_of(settings, actions=["admin"])
    options = GatewayOptions(max_queries=1, queue_seconds=0.2)
    async with AsyncExitStack() as stack:
        client = await opened(create_app(queue, settings, options=options), stack)
        assert (await client.get("/readyz")).status_code == 200
        block = Block()
        queue.script("append", block)

        async def post(jti: str) -> httpx.Response:
            return await client.post("/revocations", json={"jti": jti}, headers=bearer(admin))

        first = asyncio.create_task(post("one"))
        await block.reached()
        refused = await post("two")
        assert (refused.status_code, refused.json()["error"]) == (503, "gateway_limit")
        block.release()
        assert (await first).status_code == 200


async def test_a_tenant_has_a_bound_of_revocations(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every gateway keeps all of them in memory; the gateways of other tenants are the same."""
    monkeypatch.setattr("streamq.gateway._revocations.MOST_OF_A_TENANT", 3)
    admin = token_of(settings, actions=["admin"])
    other = token_of(settings, actions=["admin"], tenant="acme")
    async with replica(settings) as one, replica(settings) as two:

        async def post(body: dict[str, Any], by: str = admin, at: Replica = one) -> httpx.Response:
            return await at.client.post("/revocations", json=body, headers=bearer(by))

        for body in ({"jti": "a"}, {"jti": "b"}, {"subject": "ada"}):
            assert (await post(body)).status_code == 200
        refused = await post({"jti": "c"})
        assert (refused.status_code, refused.json()["error"]) == (429, "quota")
        assert "streamq token revoke" in refused.json()["message"]
        assert (await post({"subject": "ada"})).status_code == 200  # takes no more room
        assert (await post({"jti": "c"}, other)).status_code == 200
        async with asyncio.timeout(_LIMIT):
            while True:
                if (await post({"jti": "c"}, at=two)).status_code == 429:
                    break
        token = token_of(settings, subject="bob")
        await revoke_token(token, settings=settings)  # by who has the backend's credentials
        await one.becomes(401, token)


def test_what_ended_makes_room() -> None:
    """Counted is what is still needed, once however often it was revoked."""
    known = RevokedTokens()
    for key in ("a", "a", "b"):
        known.add(Revocation(key=key * 64, forget_at=5.0, tenant_key="t" * 64))
    known.add(Revocation(key="c" * 64, forget_at=9.0, tenant_key="t" * 64, before=1.0))
    assert known.count_of("t" * 64) == 3
    known.forget(4.0)
    assert len(known) == 3
    known.forget(5.0)
    assert (known.count_of("t" * 64), len(known)) == (1, 1)
    known.forget(9.0)
    assert (known.count_of("t" * 64), len(known)) == (0, 0)
    known.add(Revocation(key="d" * 64, forget_at=10.0, tenant_key="t" * 64))
    known.forget(10.0)
    assert len(known) == 0


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


async def test_forged_records_change_nothing(settings: Settings) -> None:
    """Neither a user's stream of that name, nor nonsense in the log itself."""
    token = token_of(settings)
    key = token_key("streamq", "default", claim(token, "jti"))
    forged = Revocation(key=key, forget_at=9e9).to_dict()
    async with stream(settings), replica(settings) as one, open_queue(settings) as queue:
        for name in ("revocations/1", f"{SYSTEM_TENANT}/revocations/1"):
            async with open_writer(name, queue=queue, settings=settings) as writer:
                await writer.send_chunk(json.dumps({"format": 1, **forged}))
        log = StreamId(SYSTEM_TENANT, "revocations/1")
        for opening in (open_writer, open_reader):
            with pytest.raises(ConfigurationError, match="reserved"):
                await opening(log, queue=queue, settings=settings)
        bad = [
            b"",
            b"\xff",
            b"[" * 5000,
            json.dumps(forged).encode(),  # of no format
            json.dumps({"format": 2, **forged}).encode(),
            json.dumps({"format": 1, **forged, "key": key[:-1]}).encode(),
            json.dumps({"format": 1, **forged, "kind": "everybody"}).encode(),
            json.dumps({"format": 1, **forged, "kind": "subject"}).encode(),
            json.dumps({"format": 1, **forged, "forget_at": None}).encode(),
            json.dumps({"format": 1, **forged, "forget_at": 10**400}).encode(),
            json.dumps({"format": 1, **forged, "kind": "subject", "before": 10**400}).encode(),
            json.dumps({"format": 1, "kind": "begun", "at": 10**400}).encode(),
            json.dumps({"format": 1, "kind": "moved", "to": 10**400}).encode(),
            json.dumps({"format": 1, "kind": "moved", "to": -1}).encode(),
            json.dumps({"format": 1, "kind": "moved", "to": "x"}).encode(),
        ]
        await queue.append(log, [Entry(1, index, data) for index, data in enumerate(bad)])
        revoked = token_of(settings)
        await revoke_token(revoked, settings=settings)  # what comes after is still understood
        await one.becomes(401, revoked)
        assert await one.status(token) == 200
        async with replica(settings) as later:
            assert await later.status(revoked) == 401
            assert await later.status(token) == 200


async def test_a_tenant_cannot_have_the_name(settings: Settings, queue: WatchedQueue) -> None:
    """Otherwise its users could list and read what others revoke, and revoke what is theirs."""
    with pytest.raises(ConfigurationError, match="reserved"):
        load_settings(tenant=SYSTEM_TENANT)
    with pytest.raises(ConfigurationError):
        token_of(settings, tenant=SYSTEM_TENANT)
    with pytest.raises(ConfigurationError):
        await revoke_subject("ada", tenant=SYSTEM_TENANT, settings=settings)
    with pytest.raises(ConfigurationError, match="reserved"):
        await erase_streams(every=True, tenant=SYSTEM_TENANT, queue=queue)
    trusting = load_settings(backend="memory", gateway_trust_tenants=True)
    app = create_app(queue, trusting)
    async with serve(app) as server, httpx.AsyncClient(base_url=server.url) as client:
        for verb, path in [
            ("GET", "streams"),
            ("GET", "streams/revocations/1"),
            ("GET", "events/revocations/1"),
            ("GET", "story/revocations/1"),
            ("DELETE", "streams/revocations/1"),
        ]:
            answer = await client.request(verb, f"/t/{SYSTEM_TENANT}/{path}")
            assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")


async def test_the_log_does_not_grow_for_ever(settings: Settings) -> None:
    """What concerns ended tokens is dropped, and readers follow to where the rest is."""
    async with open_queue(settings) as queue:
        log = RevocationLog(queue, settings)
        kept = [Revocation(key=f"{i:064x}", forget_at=9e9) for i in range(300)]
        for each in kept[:3]:
            await log.add(each)
        await log.add(Revocation(key="f" * 64, forget_at=1.0))
        reader, seen = RevocationLog(queue, settings), RevokedTokens()
        place = await reader.load(seen.add)
        assert place.records == 5  # and that the log has begun
        await asyncio.gather(log.rewrite(), RevocationLog(queue, settings).rewrite())
        await log.add(kept[3])
        async with asyncio.timeout(_LIMIT):
            while not seen.has_token(kept[3].key):
                place = await reader.follow(place, seen.add, 1.0)
        assert place.generation > 1
        fresh = RevokedTokens()
        await RevocationLog(queue, settings).load(fresh.add)
        assert sorted(each.key for each in fresh) == [each.key for each in kept[:4]]
        names = [info.stream.name async for info in queue.streams(SYSTEM_TENANT)]
        assert names == [f"revocations/{place.generation}"]
        info = await queue.describe(StreamId(SYSTEM_TENANT, names[0]))
        assert info.expires_in is not None
        assert info.expires_in > timedelta(days=3_000)  # whatever the time to live of streams is


async def test_writers_do_not_lose_each_others_records(settings: Settings) -> None:
    """Also while the log is rewritten again and again under them."""
    async with open_queue(settings) as queue:
        logs = [RevocationLog(queue, settings) for _ in range(4)]
        wanted = [Revocation(key=f"{i:064x}", forget_at=9e9) for i in range(40)]

        stored = asyncio.Semaphore(0)

        async def write(log: RevocationLog, mine: list[Revocation]) -> None:
            for each in mine:
                await log.add(each)
                stored.release()

        async def rewrite() -> None:
            for _ in range(9):  # fewer than a writer's attempts
                for _ in range(4):
                    await stored.acquire()
                await asyncio.gather(*(RevocationLog(queue, settings).rewrite() for _ in range(2)))

        async with asyncio.timeout(60):
            writing = (write(log, wanted[i::4]) for i, log in enumerate(logs))
            await asyncio.gather(rewrite(), *writing)
        found = RevokedTokens()
        await RevocationLog(queue, settings).load(found.add)
        assert {each.key for each in found} == {each.key for each in wanted}


async def test_without_replay_tokens_work_and_are_not_revoked(queue: WatchedQueue) -> None:
    """There no gateway could read all of them; whoever revokes hears it."""
    settings = load_settings(backend="memory", token_key=_SECRET)
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
