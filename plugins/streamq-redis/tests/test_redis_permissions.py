"""Permissions: the ACL in the README is enough, and what it forbids is reported."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
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


REFUSED = {
    "xadd": {"append"},
    "multi": {"append"},
    "exec": {"append"},
    "pexpire": {"append"},
    "xrange": {"read", "wait"},
    "xread": {"wait"},
    "xlen": {"describe", "list"},
    "pttl": {"describe", "list"},
    "xrevrange": {"describe"},
    "unlink": {"delete"},
    "scan": {"list"},
}
"""The operations that fail for a user without a command."""


@pytest.mark.parametrize("command", REFUSED)
async def test_refused_command_is_named_with_its_rule(
    open_at: OpenAt, server: EmbeddedRedis, bare: Bare, stream: StreamId, command: str
) -> None:
    """An operator who reads the message must know which rule to add, whatever was called."""
    await set_user(bare, "lacking", [*ACL_RULES, *ACL_OPTIONAL, f"-{command}"])
    owner = await open_at(server.url)
    await owner.append(stream, [Entry(1, 0, b"x")])
    queue = await open_at(f"redis://lacking:pass@127.0.0.1:{server.port}/0")

    async def read(after: str, wait: float) -> object:
        return await queue.read(stream, after, max_records=1, max_bytes=1, max_wait=wait)

    async def listed() -> object:
        return [each async for each in queue.streams(stream.tenant)]

    operations: dict[str, Callable[[], Awaitable[object]]] = {
        "append": lambda: queue.append(stream, [Entry(1, 1, b"y"), Entry(1, 2, b"z")]),
        "read": lambda: read("", 0),
        "wait": lambda: read("1-2", 20 if command == "xread" else 0.05),
        "describe": lambda: queue.describe(stream, last=1),
        "list": listed,
        "delete": lambda: queue.delete(stream),
    }
    refused = {}
    for name, operation in operations.items():
        try:
            await operation()
        except AccessDeniedError as exc:
            refused[name] = str(exc)
    assert refused.keys() == REFUSED[command]
    assert all(f"+{command} " in message for message in refused.values())


async def test_key_outside_the_users_pattern_is_denied(
    open_at: OpenAt, server: EmbeddedRedis, bare: Bare, stream: StreamId
) -> None:
    """One application must not reach the streams of another one."""
    await set_user(bare, "narrow", ACL_RULES)
    queue = await open_at(f"redis://narrow:pass@127.0.0.1:{server.port}/0", key_prefix="elsewhere")
    with pytest.raises(AccessDeniedError, match=r"~elsewhere:\*"):
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
