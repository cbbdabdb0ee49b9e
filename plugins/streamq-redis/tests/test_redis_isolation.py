"""The rights of the page about tenants: enough for a tenant, and none for its neighbours."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import redis.asyncio
import redis.exceptions as rx
from tests.isolation import code_blocks, reveals_nothing, tells_whole_story, written_stream

from redis_streams import Bare, OpenAt, run
from streamq.driver import AccessDeniedError, ChunkQueue, QueueOptions, StreamId
from streamq.testing import new_stream
from streamq.testing._harness import LONG_TTL
from streamq.testing.checks import BasicChecks
from streamq_redis import RedisDriver, RedisSettings
from streamq_redis._naming import KeySpace
from streamq_redis.embedded import EmbeddedRedis
from test_redis_conformance import RedisHarness

TENANTS = ("acme", "globex")
KEYS = KeySpace("streamq", is_indexed=True)


def environment(server: EmbeddedRedis, tenant: str) -> dict[str, str]:
    """Return the variables of the page, for a tenant of a server."""
    lines = code_blocks("redis")[1].replace("acme", tenant).splitlines()
    variables = dict(line.split("=", 1) for line in lines)
    return {
        name: value.replace("127.0.0.1:6379", server.address) for name, value in variables.items()
    }


def settings_of(server: EmbeddedRedis, tenant: str) -> RedisSettings:
    """Return the settings that those variables make."""
    variables = environment(server, tenant)
    return RedisSettings(
        url=variables["STREAMQ_REDIS_URL"],  # type: ignore[arg-type]  # pydantic makes the secret
        listing=variables["STREAMQ_REDIS_LISTING"],  # type: ignore[arg-type]
    )


async def make_tenant(bare: Bare, tenant: str) -> None:
    """Run the command of the page for a tenant."""
    (command,) = code_blocks("redis")[0].splitlines()
    await run(bare, *shlex.split(command.replace("acme", tenant)))


@pytest.fixture
async def tenants(server: EmbeddedRedis, bare: Bare) -> dict[str, RedisSettings]:
    """Run the commands of the page for two tenants; return the settings of each."""
    for tenant in TENANTS:
        await make_tenant(bare, tenant)
    return {tenant: settings_of(server, tenant) for tenant in TENANTS}


@pytest.fixture
async def open_for(tenants: dict[str, RedisSettings], open_at: OpenAt) -> OpenAt:
    """Return a function that opens a queue with the rights of a tenant."""

    async def opened(tenant: str) -> ChunkQueue:
        settings = tenants[tenant]
        return await open_at(settings.url.get_secret_value(), listing=settings.listing)

    return opened


async def test_tenant_can_do_everything_with_its_own_streams(open_for: OpenAt) -> None:
    """Rights that lack something are widened in a hurry, and then to everything."""
    await tells_whole_story(await open_for("acme"), await open_for("acme"), "acme")


async def test_tenant_gets_nothing_of_another_through_the_driver(open_for: OpenAt) -> None:
    """Not even whether a stream is there."""
    theirs = await written_stream(await open_for("globex"), "globex")
    await reveals_nothing(await open_for("acme"), theirs)
    await tells_whole_story(await open_for("globex"), await open_for("globex"), "globex")


async def test_refusal_names_a_pattern_of_one_tenant(open_for: OpenAt) -> None:
    """An administrator who follows the message must not open the keys of all tenants."""
    queue = await open_for("acme")
    with pytest.raises(AccessDeniedError, match=r"SETUSER NAME ~streamq:\{TENANT/\* "):
        await queue.describe(StreamId("globex", "any"))


async def test_tenant_gets_nothing_of_another_through_a_bare_client(
    tenants: dict[str, RedisSettings], open_for: OpenAt
) -> None:
    """Whoever has the password does not have to use streamq."""
    stream = await written_stream(await open_for("globex"), "globex")
    theirs = KEYS.key(stream)
    mine = KEYS.key(await written_stream(await open_for("acme"), "acme"))
    absent, index = KEYS.key(StreamId("globex", "absent")), KEYS.index("globex")
    url = tenants["acme"].url.get_secret_value()
    async with redis.asyncio.Redis.from_url(url, single_connection_client=True) as client:
        answers = []
        for key in (theirs, absent):
            refused = [
                *(("XRANGE", key, "-", "+"), ("XREVRANGE", key, "+", "-"), ("XLEN", key)),
                *(("XADD", key, "9-1", "r", "x"), ("XADD", key, "NOMKSTREAM", "9-1", "r", "x")),
                *(("XREAD", "STREAMS", key, "0"), ("XREAD", "STREAMS", mine, key, "0", "0")),
                *(("XINFO", "STREAM", key), ("XINFO", "CONSUMERS", key, "g")),
                *(("MEMORY", "USAGE", key), ("PTTL", key), ("PEXPIRE", key, 1), ("UNLINK", key)),
                *(("UNLINK", mine, key), ("EXISTS", key), ("TYPE", key), ("DEL", key)),
                *(("DUMP", key), ("COPY", key, mine), ("RENAME", key, mine), ("SORT", key)),
                ("OBJECT", "ENCODING", key),
            ]
            answers.append([await refusal(client, *command) for command in refused])
        assert answers[0] == answers[1]
        for command in (
            *(("ZSCAN", index, 0), ("ZADD", index, 1, "x"), ("ZREM", index, "x")),
            *(("ZREMRANGEBYSCORE", index, "-inf", "+inf"), ("ZRANGE", index, 0, -1)),
            *(("SCAN", 0), ("SCAN", 0, "MATCH", "streamq:{acme/*"), ("KEYS", "*"), ("DBSIZE",)),
            *(("RANDOMKEY",), ("INFO",), ("INFO", "keyspace"), ("CLIENT", "LIST"), ("MONITOR",)),
            *(("CLIENT", "UNBLOCK", 1), ("CLIENT", "KILL", "TYPE", "normal"), ("SLOWLOG", "GET")),
            *(("PUBSUB", "CHANNELS"), ("SUBSCRIBE", "any"), ("PSUBSCRIBE", "*")),
            *(("PUBLISH", "any", "x"), ("CONFIG", "GET", "*"), ("ACL", "LIST"), ("ACL", "LOG")),
            *(("FLUSHDB",), ("FLUSHALL",), ("SWAPDB", 0, 1), ("SELECT", 1), ("SAVE",)),
            *(("EVAL", "return redis.call('keys', '*')", 0), ("FUNCTION", "LIST")),
            *(
                ("LATENCY", "LATEST"),
                ("MEMORY", "STATS"),
                ("REPLICAOF", "NO", "ONE"),
            ),
        ):
            await refusal(client, *command)
    assert (await (await open_for("globex")).describe(stream)).records


async def refusal(client: Bare, *command: object) -> str:
    """Return why the server refuses a command."""
    try:
        answer = await run(client, *command)
    except rx.NoPermissionError as exc:
        return str(exc)
    raise AssertionError(f"{command} was not refused, but answered: {answer!r}")


async def test_doctor_of_a_tenant_finds_its_rights_complete(
    server: EmbeddedRedis, tenants: dict[str, RedisSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It tries keys of the configured tenant, and says what the page says is lost."""
    for name, value in environment(server, "acme").items():
        monkeypatch.setenv(name, value)
    options = QueueOptions(ttl=LONG_TTL)
    findings = await RedisDriver.examine(options, tenants["acme"])
    (found,) = [each for each in findings if each.subject == "permissions"]
    assert found.ok
    assert found.is_warning
    assert {"+info", "+config|get", "+client|unblock"} == set(
        found.remedy.partition("SETUSER NAME ")[2].partition(";")[0].split()
    )
    assert found.remedy.endswith("leave them out where tenants are kept apart")
    monkeypatch.setenv("STREAMQ_TENANT", "globex")
    findings = await RedisDriver.examine(options, tenants["acme"])
    (found,) = [each for each in findings if each.subject == "permissions"]
    assert not found.ok
    assert "~streamq:{globex/*" in found.remedy


class TenantHarness(RedisHarness):
    """Logs in with the rights of the page."""

    tenant: str

    def settings_at(self, address: str, login: str = "") -> RedisSettings:
        """Return settings of the tenant."""
        return settings_of(self.server, self.tenant)


@pytest.mark.full
class TestTenant(BasicChecks):
    """A sample of the conformance kit, with the rights of one tenant."""

    @pytest.fixture
    async def stream(self, bare: Bare) -> StreamId:
        """Return a stream of a tenant that the page's command has made."""
        stream = new_stream()
        await make_tenant(bare, stream.tenant)
        return stream

    @pytest.fixture
    def harness(self, tmp_path: Path, server: EmbeddedRedis, stream: StreamId) -> TenantHarness:
        """Return a harness on the shared server."""
        harness = TenantHarness(tmp_path, server, "redis, rights of one tenant")
        harness.tenant = stream.tenant
        return harness
