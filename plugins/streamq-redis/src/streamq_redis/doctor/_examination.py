"""Puts the findings about a server together.

Design: docs/design/redis.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from streamq.driver import Finding
from streamq_redis._settings import RedisSettings
from streamq_redis.requests._connection import Connection

from ._facts import ask
from ._keeping import eviction, persistence, replication
from ._permissions import permissions
from ._serving import clock, encryption, memory, role, version


async def examine(
    connection: Connection, settings: RedisSettings, address: str
) -> Sequence[Finding]:
    """Examine the server of a connection.

    Raises:
        redis.exceptions.RedisError: The connection was lost.
        OSError: The connection was lost.
    """
    facts = await ask(connection)
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
    findings += await permissions(connection, settings)
    return findings


def is_local(address: str) -> bool:
    """Whether an address is on this host."""
    host = address.rpartition(":")[0]
    return address.startswith("/") or host in ("localhost", "::1") or host.startswith("127.")
