"""Asks a server for facts about itself, and puts the findings together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from streamq.driver import Finding
from streamq_redis._naming import KeySpace
from streamq_redis._settings import RedisSettings
from streamq_redis.requests._commands import Reply
from streamq_redis.requests._connection import Connection, Server

from ._keeping import eviction, persistence, replication
from ._permissions import permissions
from ._serving import clock, encryption, memory, numbers_of, role, version

_CONFIGS = ("appendfsync", "min-replicas-to-write")


@dataclass(frozen=True, slots=True)
class Facts:
    """What a server says about itself.

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


async def examine(
    connection: Connection, settings: RedisSettings, address: str
) -> Sequence[Finding]:
    """Examine the server of a connection.

    Raises:
        redis.exceptions.RedisError: The connection was lost.
        OSError: The connection was lost.
    """
    facts = await _ask(connection)
    findings = [version(facts, address), role(facts)]
    if not facts.info:
        findings.append(
            Finding(
                "configuration",
                True,
                "could not be examined: the server does not let us see INFO",
                "grant +info, or look at the service's console: maxmemory-policy noeviction, "
                "persistence and a replica are what streams need",
                is_warning=True,
            )
        )
    else:
        findings += [eviction(facts), memory(facts), persistence(facts)]
        findings += replication(facts, is_local=is_local(address))
    findings.append(clock(facts))
    findings += encryption(settings, is_local=is_local(address))
    findings += await permissions(connection, KeySpace(settings.key_prefix))
    return findings


def is_local(address: str) -> bool:
    """Whether an address is on this host."""
    host = address.rpartition(":")[0]
    return address.startswith("/") or host in ("localhost", "::1") or host.startswith("127.")


async def _ask(connection: Connection) -> Facts:
    before = time.time()
    now, info, *configs = await connection.call(
        ("TIME",), ("INFO",), *(("CONFIG", "GET", name) for name in _CONFIGS)
    )
    after = time.time()
    ahead = None
    if isinstance(now, list) and len(numbers := numbers_of(now)) == 2:
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
