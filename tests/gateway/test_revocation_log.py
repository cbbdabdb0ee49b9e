"""The log of revocations: its cost, its bounds, forged records, and how it is rewritten."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import httpx
import pytest

from streamq import (
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
from streamq.access import revoke_subject, revoke_token
from streamq.access._revocation_log import RevocationLog
from streamq.access._revocations import Revocation, RevokedTokens, token_key
from streamq.driver import Entry
from streamq.gateway import GatewayOptions, create_app, serve
from streamq.testing import Block

from .replicas import LIMIT, Replica, bearer, claim, opened, replica, settings_of, stream, token_of
from .served import WatchedQueue


@pytest.fixture
def settings(shared_settings: Settings) -> Settings:
    return shared_settings


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
        async with asyncio.timeout(LIMIT):
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
        async with asyncio.timeout(LIMIT):
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
