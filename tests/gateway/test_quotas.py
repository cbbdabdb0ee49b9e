"""Quotas of tenants and subjects at the gateway, over real HTTP with tokens."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import aconnect_sse

from streamq import Settings, load_settings, open_writer
from streamq.access import Action, mint_token, new_secret
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

[subjects.ada]
connections = 1
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    path = tmp_path / "quotas.toml"
    path.write_text(QUOTAS)
    return load_settings(backend="memory", retry_seconds=0.05, token_key=KEY, quotas=path)


def bearer(settings: Settings, tenant: str, subject: str = "bob") -> dict[str, str]:
    settings = settings.model_copy(update={"tenant": tenant})
    actions = [Action.READ, Action.LIST]
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
