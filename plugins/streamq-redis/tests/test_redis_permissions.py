"""Permissions: the ACL in the README is enough, and what it forbids is reported."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from redis_streams import ACL_OPTIONAL, ACL_RULES, Bare, OpenAt, read_soon, set_user
from streamq import AccessDeniedError, StreamId
from streamq.driver import Entry
from streamq_redis import RedisSettings
from streamq_redis.embedded import EmbeddedRedis


@pytest.mark.parametrize("rules", [ACL_RULES, ACL_RULES + ACL_OPTIONAL])
async def test_restricted_user_can_do_everything(
    open_at: OpenAt, server: EmbeddedRedis, bare: Bare, stream: StreamId, rules: list[str]
) -> None:
    """The ACL in the README is enough, also without its optional part."""
    await set_user(bare, "limited", rules)
    queue = await open_at(f"redis://limited:pass@127.0.0.1:{server.port}/0")
    for i in range(3):
        read = read_soon(queue, stream, f"1-{i - 1}" if i else "")
        await asyncio.sleep(0.01)
        await queue.append(stream, [Entry(1, i, b"%d" % i)])
        assert [b"%d" % i] == [record.data for record in await read]
    late = StreamId(stream.tenant, "late")
    read = read_soon(queue, late)
    await asyncio.sleep(0.01)
    await queue.append(late, [Entry(1, 0, b"x")])
    async with asyncio.timeout(1):
        await read
    assert (await queue.describe(stream, last=1)).records == 3
    assert [stream] == [each.stream async for each in queue.streams(stream.tenant, stream.name)]
    await queue.delete(stream)


async def test_key_outside_the_users_pattern_is_denied(
    open_at: OpenAt, server: EmbeddedRedis, bare: Bare, stream: StreamId
) -> None:
    """One application must not reach the streams of another one."""
    await set_user(bare, "narrow", ACL_RULES)
    queue = await open_at(f"redis://narrow:pass@127.0.0.1:{server.port}/0", key_prefix="elsewhere")
    with pytest.raises(AccessDeniedError, match="ACL"):
        await queue.append(stream, [Entry(1, 0, b"x")])
    with pytest.raises(AccessDeniedError, match="ACL"):
        await read_soon(queue, stream)


def test_readme_names_every_setting_and_every_needed_permission() -> None:
    """Operators configure from that page."""
    text = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
    for name, field in RedisSettings.model_fields.items():
        assert f"| `STREAMQ_REDIS_{name.upper()}` |" in text
        assert str(field.description) in text
    for rules in (ACL_RULES, ACL_OPTIONAL):
        assert " ".join(rules) in text
