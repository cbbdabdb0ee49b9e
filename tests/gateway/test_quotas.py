"""Quotas of tenants and subjects at the gateway, over real HTTP with tokens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import aconnect_sse

from streamq import Settings, load_settings, open_writer
from streamq.access import Action, mint_token, new_secret
from streamq.gateway._clients import Client
from streamq.gateway._handlers import _story
from streamq.testing import Block

from .served import Serve, Served, WatchedQueue, eventually

KEY = new_secret()
QUOTAS = """
[tenants.connected]
connections = 2

[tenants.followed]
streams = 1

[tenants.listed]
lists = 1

[tenants.caught]
catch_ups = 1

[tenants.slow]
bytes_per_second = 64_000

[tenants.slower]
bytes_per_second = 1_000

[tenants.one.subjects.ada]
connections = 1
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    path = tmp_path / "quotas.toml"
    path.write_text(QUOTAS)
    return load_settings(backend="memory", retry_seconds=0.05, token_key=KEY, quotas=path)


def bearer(
    settings: Settings,
    tenant: str,
    subject: str = "bob",
    actions: Sequence[Action] = (Action.READ, Action.LIST),
) -> dict[str, str]:
    settings = settings.model_copy(update={"tenant": tenant})
    token = mint_token(every=True, subject=subject, actions=actions, settings=settings)
    return {"Authorization": f"Bearer {token}"}


async def write(queue: WatchedQueue, settings: Settings, tenant: str, *names: str) -> None:
    settings = settings.model_copy(update={"tenant": tenant})
    for name in names:
        writer = await open_writer(name, queue=queue, settings=settings)
        await writer.send_chunk("text")
        await writer.aclose()


async def follow(
    stack: AsyncExitStack, served: Served, name: str, headers: dict[str, str]
) -> httpx.Response:
    """Open a stream, which stays open."""
    path = f"/streams/{name}/events"
    source = await stack.enter_async_context(
        aconnect_sse(served.client, "GET", path, headers=headers)
    )
    if source.response.status_code != 200:
        await source.response.aread()
    return source.response


def expect_quota(answer: httpx.Response, said: str) -> None:
    assert (answer.status_code, answer.json()["error"]) == (429, "quota")
    assert said in answer.json()["message"]
    assert int(answer.headers["Retry-After"]) > 0


async def test_connections_of_a_tenant(
    start: Serve, queue: WatchedQueue, settings: Settings
) -> None:
    """One more is refused; others do not notice; the place of one that ends is free again."""
    for tenant in ("connected", "another"):
        await write(queue, settings, tenant, "a")
    served = await start()
    ours, theirs = bearer(settings, "connected"), bearer(settings, "another")
    async with AsyncExitStack() as stack:
        for _ in range(2):
            assert (await follow(stack, served, "a", ours)).status_code == 200
        refused = await follow(stack, served, "a", ours)
        expect_quota(refused, "the quota of this tenant is 2 open event streams")
        assert "connected" not in refused.json()["message"]
        for _ in range(3):
            assert (await follow(stack, served, "a", theirs)).status_code == 200
    await eventually(lambda: not served.gateway.statistics().connections)
    async with AsyncExitStack() as stack:
        assert (await follow(stack, served, "a", ours)).status_code == 200


async def test_connections_of_a_subject(
    start: Serve, queue: WatchedQueue, settings: Settings
) -> None:
    """By its tenant, too: the subject of another tenant is somebody else."""
    for tenant in ("one", "two"):
        await write(queue, settings, tenant, "a", "b")
    served = await start()
    async with AsyncExitStack() as stack:
        ada = bearer(settings, "one", "ada")
        assert (await follow(stack, served, "a", ada)).status_code == 200
        expect_quota(await follow(stack, served, "b", ada), "of this subject is 1 open event")
        for headers in (bearer(settings, "two", "ada"), bearer(settings, "one", "bob")):
            assert (await follow(stack, served, "a", headers)).status_code == 200


async def test_streams_that_a_tenant_follows(
    start: Serve, queue: WatchedQueue, settings: Settings
) -> None:
    """Many readers of one stream are one stream."""
    await write(queue, settings, "followed", "a", "b")
    served = await start()
    headers = bearer(settings, "followed")
    async with AsyncExitStack() as stack:
        for _ in range(3):
            assert (await follow(stack, served, "a", headers)).status_code == 200
        expect_quota(await follow(stack, served, "b", headers), "1 streams that are followed")
    await eventually(lambda: not served.gateway.statistics().connections)
    async with AsyncExitStack() as stack:
        assert (await follow(stack, served, "b", headers)).status_code == 200


async def test_lists_of_a_tenant_wait_in_turn(
    start: Serve, queue: WatchedQueue, settings: Settings
) -> None:
    """Others are served meanwhile, whose addresses are not those of the tenant."""
    await write(queue, settings, "listed", "a")
    await write(queue, settings, "another", "a")
    served = await start(trusted_proxies=("127.0.0.1",))
    block = Block()
    queue.script("streams", block)

    async def listed(tenant: str, address: str) -> Any:
        headers = bearer(settings, tenant) | {"X-Forwarded-For": address}
        answer = await served.client.get("/streams", headers=headers)
        return [each["name"] for each in answer.json()["streams"]]

    first = asyncio.create_task(listed("listed", "192.0.2.1"))
    await block.reached()
    second = asyncio.create_task(listed("listed", "192.0.2.2"))
    assert await listed("another", "192.0.2.3") == ["a"]
    assert not second.done()
    block.release()
    assert [await first, await second] == [["a"], ["a"]]


async def test_pages_of_a_tenant_are_read_in_turn(
    start: Serve, queue: WatchedQueue, settings: Settings
) -> None:
    """A tenant whose readers are all behind leaves the other turns to others."""
    for tenant in ("caught", "another"):
        await write(queue, settings, tenant, "a", "b")
    served = await start()
    block = Block()
    queue.always("read", lambda call: None if call.max_wait else block)
    pages = served.gateway.statistics

    async with AsyncExitStack() as stack:
        for name in "ab":
            await follow(stack, served, name, bearer(settings, "caught"))
        await eventually(lambda: (pages().page_reads, pages().page_waits) == (1, 1))
        await follow(stack, served, "a", bearer(settings, "another"))
        await eventually(lambda: (pages().page_reads, pages().page_waits) == (2, 1))
        block.release()
        await eventually(lambda: (pages().page_reads, pages().page_waits) == (0, 0))


async def test_bytes_of_a_tenant_are_delayed(
    start: Serve, queue: WatchedQueue, settings: Settings
) -> None:
    """They all arrive, and heartbeats come while they are delayed."""
    tenant = settings.model_copy(update={"tenant": "slow"})
    async with open_writer("a", queue=queue, settings=tenant) as writer:
        for _ in range(25):
            await writer.send_chunk("x" * 10_000)
    served = await start(heartbeat_seconds=0.2)
    begun = time.monotonic()
    headers = bearer(settings, "slow")
    answer = await served.client.get("/streams/a/events", headers=headers, timeout=60)
    # 250 kB take 4 s, of which the first second is free, and the last piece delays nothing.
    assert time.monotonic() - begun >= 1.5
    assert answer.text.count("event: chunk") == 25
    assert "event: end" in answer.text
    assert answer.text.count("\n: ") + answer.text.count("\n:\n") >= 2


async def write_long(queue: WatchedQueue, settings: Settings, tenant: str) -> None:
    """Write a stream of 250 kB that has not ended."""
    tenant_settings = settings.model_copy(update={"tenant": tenant})
    writer = await open_writer("a", queue=queue, settings=tenant_settings)
    for _ in range(25):
        await writer.send_chunk("x" * 10_000)
    await writer.aclose()


async def test_a_delayed_client_learns_that_its_stream_was_deleted(
    start: Serve, queue: WatchedQueue, settings: Settings
) -> None:
    """The debt is minutes; text that was deleted must not come when it is paid."""
    await write_long(queue, settings, "slower")
    served = await start()
    headers = bearer(settings, "slower", actions=[Action.READ, Action.DELETE])
    seen = b""
    async with (
        asyncio.timeout(30),
        served.client.stream("GET", "/events/a", headers=headers) as answer,
    ):
        deleted = False
        async for data in answer.aiter_bytes():
            seen += data
            if b"event: chunk" in seen and not deleted:
                deleted = True
                assert (await served.client.delete("/streams/a", headers=headers)).is_success
    assert b"stream_not_found" in seen
    assert seen.count(b"event: chunk") < 25


async def test_stories_count_as_events_do(
    start: Serve, queue: WatchedQueue, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a story would be the way around the quota. Nothing is lost: the next page goes on."""
    monkeypatch.setattr(_story, "_PAGE_SECONDS", 0.3)
    await write_long(queue, settings, "slower")
    served = await start()
    headers = bearer(settings, "slower")
    first = (await served.client.get("/story/a", headers=headers)).json()
    assert 0 < len(first["chunks"]) < 25
    assert not first["is_complete"]
    path = f"/story/a?after={first['after']}"
    second = (await served.client.get(path, headers=headers)).json()
    assert (second["chunks"], second["after"]) == ([], first["after"])


async def test_a_gateway_goes_on_without_its_file_of_quotas(
    start: Serve, settings: Settings
) -> None:
    """A further event loop begins while the file is being written."""
    gateway = (await start()).gateway
    assert settings.quotas is not None
    settings.quotas.write_text("[tenant")
    client = Client("192.0.2.1", "listed")
    for each in (gateway.twin(), gateway):
        assert [each.most for each in each.quotas.allowances("lists")(client)] == [1]
