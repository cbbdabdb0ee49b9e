"""Judges whether a server will go on answering, and whether to these requests.

Design: docs/design/redis.md.
"""

from __future__ import annotations

from streamq.driver import Finding
from streamq_redis._settings import RedisSettings

from ._facts import Facts

OLDEST = (6, 2)
"""The oldest version of Redis that has what the driver uses."""

_SKEW_SECONDS = 2.0
_NEARLY = 0.9


def is_too_old(server_version: str) -> bool:
    """Whether a server lacks what the driver uses."""
    parts = server_version.split(".")[:2]
    return tuple(int(part) for part in parts if part.isdigit()) < OLDEST


def mode_problem(mode: str) -> tuple[str, str] | None:
    """Return what a server is that cannot hold streams, and what to do; ``None`` if it can."""
    if mode == "cluster":
        return (
            "a node of a Redis Cluster, which streamq-redis does not support yet",
            "use a single server, with replicas if you like, or a service without cluster mode",
        )
    if mode == "sentinel":
        return (
            "a Sentinel, which knows the primary and holds no streams",
            "let STREAMQ_REDIS_URL lead to the primary, by a proxy or a name that follows it",
        )
    return None


def version(facts: Facts, address: str) -> Finding:
    """Judge the server's version and mode."""
    server = facts.server
    seen = f"{server.program} {server.version}"
    if is_too_old(server.version):
        remedy = "install Redis 6.2 or newer, or Valkey"
        return Finding("server", False, f"{seen} at {address} is too old", remedy)
    if problem := mode_problem(server.mode):
        what, remedy = problem
        return Finding("server", False, f"{seen} at {address} is {what}", remedy)
    return Finding("server", True, f"{seen} at {address}")


def role(facts: Facts) -> Finding:
    """Judge whether the server can be written to."""
    if not facts.server.is_replica:
        return Finding("role", True, "primary")
    link = facts.info.get("master_link_status", "unknown")
    detail = f"a replica (link to its primary: {link}): every append is refused"
    remedy = "let STREAMQ_REDIS_URL lead to the primary, or to a name that follows it"
    return Finding("role", False, detail, remedy)


def memory(facts: Facts) -> Finding:
    """Judge whether there is room, for data and for clients."""
    limit, used = facts.number("maxmemory"), facts.number("used_memory") or 0
    clients, most = facts.number("connected_clients") or 0, facts.number("maxclients")
    if limit and used >= limit:
        detail = f"used: {used} of {limit} bytes; appends are refused"
        return Finding("memory", False, detail, "raise maxmemory or delete streams")
    if limit and used > _NEARLY * limit:
        detail = f"used: {used} of {limit} bytes; appends are refused when it is full"
        remedy = "raise maxmemory or lower STREAMQ_TTL_SECONDS"
        return Finding("memory", True, detail, remedy, is_warning=True)
    if most and clients > _NEARLY * most:
        detail = f"{clients} of {most} clients are connected"
        remedy = "raise maxclients; each process that streams takes four"
        return Finding("memory", True, detail, remedy, is_warning=True)
    of = f" of {limit}" if limit else ", without a limit (maxmemory 0)"
    return Finding("memory", True, f"used: {used} bytes{of}")


def clock(facts: Facts) -> Finding:
    """Compare the clocks: attempts of writers without Temporal are ordered by those of hosts."""
    ahead = facts.ahead_seconds
    if ahead is None:
        return Finding("clock", True, "not compared: the server does not let us see TIME")
    if abs(ahead) <= _SKEW_SECONDS:
        return Finding("clock", True, f"within {_SKEW_SECONDS:g} s of this host's")
    way = "ahead of" if ahead > 0 else "behind"
    return Finding(
        "clock",
        True,
        f"the server's is {abs(ahead):.1f} s {way} this host's; times to live are relative and do "
        "not depend on it, but writers on hosts whose clocks differ fence each other wrongly",
        "synchronise the clocks of the hosts",
        is_warning=True,
    )


def encryption(settings: RedisSettings, *, is_local: bool) -> list[Finding]:
    """Judge whether passwords and chunks can be read on the way."""
    if settings.url.get_secret_value().strip().startswith("rediss:"):
        return [Finding("encryption", True, "TLS")]
    if is_local:
        return []
    detail = "none: password and chunks can be read by everybody on the way"
    remedy = "use rediss:// if the server has TLS"
    return [Finding("encryption", True, detail, remedy, is_warning=True)]
