"""Asks a server for facts about itself.

Design: docs/design/redis.md.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from streamq_redis.requests._commands import Reply
from streamq_redis.requests._connection import Connection, Server

_CONFIGS = ("appendfsync", "min-replicas-to-write")


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts that a server states about itself.

    Attributes:
        server: From the greeting.
        info: The fields of INFO; empty if the server does not let us see them.
        configs: Values of CONFIG GET by name, as far as the server lets us see them.
        ahead_seconds: By how much the server's clock is ahead of this host's, if it tells.
    """

    server: Server
    info: dict[str, str]
    configs: dict[str, str]
    ahead_seconds: float | None

    def number(self, name: str) -> int | None:
        """Return a field of INFO that is a number."""
        value = self.info.get(name, "")
        return int(value) if value.isdigit() else None


async def ask(connection: Connection) -> Facts:
    """Return the facts; those that the server hides are left out.

    Raises:
        redis.exceptions.RedisError: The connection was lost.
        OSError: The connection was lost.
    """
    before = time.time()
    now, info, *configs = await connection.call(
        ("TIME",), ("INFO",), *(("CONFIG", "GET", name) for name in _CONFIGS)
    )
    after = time.time()
    ahead = None
    if isinstance(now, list) and len(numbers := _numbers(now)) == 2:
        server_time = numbers[0] + numbers[1] / 1e6
        # It was read some time between both.
        ahead = server_time - min(max(server_time, before), after)
    return Facts(connection.server, _fields(info), _values(configs), ahead)


def _fields(info: Reply) -> dict[str, str]:
    if not isinstance(info, bytes):
        return {}
    pairs = (line.partition(":") for line in info.decode(errors="replace").splitlines())
    return {name: value for name, colon, value in pairs if colon}


def _values(replies: Sequence[Reply]) -> dict[str, str]:
    found = {}
    for reply in replies:
        if isinstance(reply, list) and len(reply) == 2:
            name, value = reply
            if isinstance(name, bytes) and isinstance(value, bytes):
                found[name.decode()] = value.decode(errors="replace")
    return found


def _numbers(reply: list[Reply]) -> list[int]:
    """Return the numbers in a reply whose elements are texts."""
    return [int(each) for each in reply if isinstance(each, bytes) and each.isdigit()]
