"""Doctor: what people get wrong on a Redis server, and what the message tells them to do."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Sequence
from datetime import timedelta

import pytest
import redis.asyncio

from redis_streams import ACL_OPTIONAL, ACL_RULES, Bare, OpenAt, StartServer, set_user
from streamq import AccessDeniedError, BackendUnavailableError
from streamq.driver import Finding, QueueOptions
from streamq_redis import RedisDriver, RedisSettings
from streamq_redis.doctor._facts import Facts
from streamq_redis.doctor._serving import clock, encryption, version
from streamq_redis.embedded import EmbeddedRedis
from streamq_redis.requests._connection import Server

DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


async def examine(url: str) -> dict[str, Finding]:
    settings = RedisSettings(url=url)  # type: ignore[arg-type]  # pydantic makes the secret
    found = await RedisDriver.examine(QueueOptions(ttl=timedelta(hours=1)), settings)
    for each in found:
        assert each.detail
        assert bool(each.remedy) == (not each.ok or each.is_warning)
    return {each.subject: each for each in found}


def verdict(finding: Finding) -> str:
    return "wrong" if not finding.ok else "warn" if finding.is_warning else "ok"


async def test_good_server_has_no_problem(start_server: StartServer) -> None:
    """A warning that always appears is read by nobody."""
    found = await examine(start_server(arguments=DURABLE).url)
    assert {verdict(each) for each in found.values()} == {"ok"}


@pytest.mark.parametrize(
    ("arguments", "subject", "expected", "text"),
    [
        (("--maxmemory-policy", "allkeys-lru"), "eviction", "wrong", "noeviction"),
        (("--maxmemory-policy", "volatile-ttl"), "eviction", "wrong", "noeviction"),
        ((), "persistence", "warn", "appendonly yes"),
        (("--appendonly", "yes"), "persistence", "warn", "appendfsync everysec"),
        (("--min-replicas-to-write", "1"), "replicas", "wrong", "every append is refused"),
        (("--cluster-enabled", "yes"), "server", "wrong", "Cluster"),
        (("--replicaof", "127.0.0.1", "1"), "role", "wrong", "link to its primary: down"),
        (("--maxmemory", "600kb"), "memory", "wrong", "raise maxmemory"),
        ((*DURABLE, "--rename-command", "CONFIG", ""), "persistence", "warn", "not be examined"),
        ((*DURABLE, "--rename-command", "INFO", ""), "configuration", "warn", "not be examined"),
        (("--rename-command", "SCAN", ""), "permissions", "wrong", "+scan"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_problem_is_found_and_a_remedy_named(
    start_server: StartServer, arguments: Sequence[str], subject: str, expected: str, text: str
) -> None:
    """Each of these servers looks healthy, and loses or refuses streams later."""
    found = (await examine(start_server(arguments=arguments).url))[subject]
    assert verdict(found) == expected
    assert text in f"{found.detail} {found.remedy}"


async def test_memory_that_is_nearly_full_is_a_warning(start_server: StartServer) -> None:
    """The server refuses appends minutes later."""
    server = start_server()
    async with redis.asyncio.Redis.from_url(server.url) as client:
        await client.set("large", bytes(10_000_000))
    async with redis.asyncio.Redis.from_url(server.url) as client:  # without the first's buffers
        await client.config_set("maxmemory", str(int((await client.info())["used_memory"] * 1.05)))
    assert verdict((await examine(server.url))["memory"]) == "warn"


async def test_replicas_are_counted(start_server: StartServer) -> None:
    """With a replica, a primary that is cut off must not go on accepting records."""
    server = start_server()
    replica = start_server(arguments=("--replicaof", "127.0.0.1", str(server.port)))
    async with redis.asyncio.Redis.from_url(server.url) as client:
        while not (await client.info("replication"))["connected_slaves"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    found = (await examine(server.url))["replicas"]
    assert verdict(found) == "warn"
    assert "min-replicas-to-write 0" in found.detail
    assert verdict((await examine(replica.url))["role"]) == "wrong"


async def test_lacking_permissions_are_named(server: EmbeddedRedis, bare: Bare) -> None:
    """The rules are what an administrator needs, in the form in which the server takes them."""
    url = f"redis://examined:pass@127.0.0.1:{server.port}/0"
    await set_user(bare, "examined", [*ACL_RULES, *ACL_OPTIONAL, "-xread", "-scan"])
    found = (await examine(url))["permissions"]
    assert (verdict(found), found.remedy) == ("wrong", "run: ACL SETUSER NAME +xread +scan")
    await set_user(bare, "examined", ["~streamq:*"])
    found = (await examine(url))["permissions"]
    assert set(found.remedy.split()[4:]) == set(ACL_RULES[1:])
    await set_user(bare, "examined", ["~other:*", *ACL_RULES[1:], *ACL_OPTIONAL])
    assert "~streamq:*" in (await examine(url))["permissions"].remedy
    await set_user(bare, "examined", ACL_RULES)
    found = (await examine(url))["permissions"]
    assert verdict(found) == "warn"
    for rule in ACL_OPTIONAL:
        assert rule in found.remedy
    await set_user(bare, "examined", [*ACL_RULES, *ACL_OPTIONAL])
    assert verdict((await examine(url))["permissions"]) == "ok"
    assert await bare.keys("streamq:{streamq-doctor*") == []
    with pytest.raises(AccessDeniedError):
        await examine(url.replace("pass@", "wrong@"))


async def test_server_that_does_not_answer_is_an_error_of_streamq() -> None:
    """The command shows it as a finding, like the others."""
    with pytest.raises(BackendUnavailableError, match=r"127\.0\.0\.1:1 "):
        await examine("redis://127.0.0.1:1/0")


def test_judgements_that_no_server_here_causes() -> None:
    """An old version, another clock, and a connection over a network without TLS."""
    facts = Facts(
        Server(1, "Redis", "6.0.16", mode="standalone", is_replica=False, identity=""), {}, {}, 9.0
    )
    assert verdict(version(facts, "db:6379")) == "wrong"
    assert (verdict(clock(facts)), "9.0 s ahead" in clock(facts).detail) == ("warn", True)
    assert verdict(clock(dataclasses.replace(facts, ahead_seconds=-0.5))) == "ok"
    plain = RedisSettings(url="redis://db/0")  # type: ignore[arg-type]
    assert verdict(encryption(plain, is_local=False)[0]) == "warn"


@pytest.mark.parametrize("option", ["maxmemory-policy allkeys-lru", "appendfsync everysec"])
async def test_queue_declares_only_what_its_server_keeps(
    start_server: StartServer, open_at: OpenAt, option: str
) -> None:
    """What `streamq backends` and `require=` go by is the open queue, not the driver."""
    server = start_server(arguments=DURABLE)
    queue = await open_at(server.url)
    assert queue.capabilities.durable
    async with redis.asyncio.Redis.from_url(server.url) as client:
        await client.config_set(*option.split())
        assert not (await open_at(server.url)).capabilities.durable
        for each in await client.client_list():
            if each["name"] == "streamq":
                await client.client_kill_filter(_id=each["id"])
        async with asyncio.timeout(20):
            while queue.capabilities.durable:
                with contextlib.suppress(BackendUnavailableError):
                    _ = [each async for each in queue.streams("t")]
