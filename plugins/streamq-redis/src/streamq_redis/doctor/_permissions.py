"""Tries each command that the driver uses, on a key that does not exist, where it has no effect.

Design: docs/design/redis.md.
"""

from __future__ import annotations

import uuid

import redis.exceptions as rx

from streamq import load_settings
from streamq.driver import Entry, Finding, StreamId
from streamq_redis._errors import aborted_because, missing_rule
from streamq_redis._settings import RedisSettings
from streamq_redis.requests._commands import (
    Command,
    Reply,
    add_if_exists,
    entries_after,
    expire,
    facts,
    last_id,
    newest_entries,
    persistence,
    remove,
    scan,
    scan_index,
    unblock,
)
from streamq_redis.requests._connection import Connection

_NAME = "streamq-doctor"

_EFFECTS = {
    "client|unblock": "a stream that is newly followed is read up to 0.1 s later",
    "info": "no queue declares `durable`, and an old primary that answers on is noticed late",
    "config|get": "no queue declares `durable`",
    "memory|usage": "sizes of streams are not shown",
    "xinfo|stream": "a stale append is refused only while the newest record is stored",
}
"""The consequence of a missing permission, for commands that can be done without."""


async def permissions(connection: Connection, settings: RedisSettings) -> list[Finding]:
    """Return which commands the user may not run.

    With an index for each tenant, keys of the configured tenant are tried: others may be forbidden.

    Raises:
        redis.exceptions.RedisError: The connection was lost.
        OSError: The connection was lost.
    """
    subject = "permissions"
    if connection.server.is_replica:
        return [Finding(subject, True, "not examined: a replica refuses most commands")]
    keys = settings.key_space()
    tenant = load_settings().tenant if keys.is_indexed else _NAME
    stream = StreamId(tenant, f"{_NAME}/{uuid.uuid4()}")
    key, index, member = keys.key(stream), keys.index(tenant), keys.member(stream)
    listing = (
        [
            ("ZREM", index, member),
            ("ZREMRANGEBYSCORE", index, "-inf", 0),
            ("ZADD", index, "XX", 0, member),
            scan_index(index, b"0", keys.members(stream.name)),
        ]
        if keys.is_indexed
        else [scan(b"0", keys.pattern(tenant, stream.name))]
    )
    needed: list[Command] = [
        ("PING",),
        add_if_exists(key, Entry(1, 0, b"")),
        ("MULTI",),
        ("EXEC",),
        expire(key, 1),
        entries_after(key, "0-0", 1),
        newest_entries(key, 1),
        ("XREAD", "COUNT", 1, "STREAMS", key, "0-0"),
        *facts(key)[:2],
        remove(key),
        *listing,
    ]
    useful = [facts(key)[2], last_id(key)[0], *persistence(), unblock(connection.server.client_id)]
    replies = await connection.call(*needed, *useful)
    pattern = keys.of_tenant(tenant) if keys.is_indexed else keys.granted
    lacking = _rules(needed, replies[: len(needed)], pattern)
    if lacking:
        rules = " ".join(lacking)
        detail = f"the user lacks {rules}: streams cannot be written, read, listed or deleted"
        return [Finding(subject, False, detail, f"run: ACL SETUSER NAME {rules}")]
    missing = dict.fromkeys(
        rule
        for command, reply in zip(useful, replies[len(needed) :], strict=True)
        if isinstance(reply, rx.ResponseError) and (rule := _useful_rule(command, reply))
    )
    if not missing:
        return [Finding(subject, True, "every command that is used is allowed")]
    apart = "; leave them out where tenants are kept apart" if keys.is_indexed else ""
    effects = [f"{rule}: {_EFFECTS[rule[1:]]}" for rule in missing]
    return [
        Finding(
            subject,
            True,
            "not allowed, and not needed: " + "; ".join(effects),
            f"run: ACL SETUSER NAME {' '.join(missing)}; some services refuse them to everybody"
            + apart,
            is_warning=True,
        )
    ]


def _rules(commands: list[Command], replies: list[Reply], pattern: str) -> list[str]:
    """Return the rules that would allow the commands that were refused, each once."""
    found: dict[str, None] = {}
    for command, answer in zip(commands, replies, strict=True):
        reply = aborted_because(answer) if isinstance(answer, rx.ResponseError) else answer
        if isinstance(reply, rx.NoPermissionError):
            found[missing_rule(reply, pattern)] = None
        elif isinstance(reply, rx.ResponseError) and "unknown command" in str(reply):
            found[f"+{str(command[0]).lower()}"] = None
    return list(found)


def _useful_rule(command: Command, reply: rx.ResponseError) -> str:
    """Return the rule that would allow a command; empty if something else was wrong with it."""
    if not isinstance(reply, rx.NoPermissionError) and "unknown" not in str(reply):
        return ""
    name = str(command[0]).lower()
    with_part = f"{name}|{str(command[1]).lower()}" if len(command) > 1 else name
    return f"+{with_part if with_part in _EFFECTS else name}"
