"""Judges what a server does to records that it has acknowledged.

Design: docs/design/redis.md.
"""

from __future__ import annotations

from streamq.driver import Finding

from ._facts import Facts


def eviction(facts: Facts) -> Finding:
    """Judge whether the server removes streams to make room."""
    policy = facts.info.get("maxmemory_policy", "")
    if not policy:
        return Finding(
            "eviction",
            True,
            "could not be examined: the server does not report maxmemory_policy",
            "make sure that it is noeviction",
            is_warning=True,
        )
    if policy == "noeviction":
        return Finding("eviction", True, "maxmemory-policy noeviction")
    limit = facts.number("maxmemory")
    evicted = facts.number("evicted_keys") or 0
    when = f"with maxmemory {limit}, which is set" if limit else "as soon as a maxmemory is set"
    detail = (
        f"maxmemory-policy {policy}: the server deletes streams that are being read, {when}; "
        f"{evicted} keys were evicted since it started"
    )
    return Finding("eviction", False, detail, "set maxmemory-policy noeviction")


def persistence(facts: Facts) -> Finding:
    """Judge what a crash of the server loses."""
    info = facts.info
    if info.get("aof_enabled") == "1":
        if info.get("aof_last_write_status") == "err":
            detail = "the last write to the append-only file failed; the server refuses appends"
            return Finding("persistence", False, detail, "free space on the server's disk")
        policy = facts.configs.get("appendfsync")
        if policy == "always":
            return Finding("persistence", True, "appendonly yes, appendfsync always: durable")
        if policy is None:
            return Finding(
                "persistence",
                True,
                "appendonly yes; appendfsync could not be examined, so that queues do not declare "
                "`durable`",
                "grant +config|get; services that refuse CONFIG show it in their console",
                is_warning=True,
            )
        return Finding(
            "persistence",
            True,
            f"appendonly yes, appendfsync {policy}: a crash may lose the last moments",
            "set appendfsync always if flush() has to mean durable",
            is_warning=True,
        )
    if info.get("rdb_last_bgsave_status") == "err":
        detail = "the last snapshot failed; the server may refuse appends"
        return Finding("persistence", False, detail, "free space on the server's disk")
    return Finding(
        "persistence",
        True,
        "appendonly no: a restart loses what came after the last snapshot, or every stream",
        "set appendonly yes, and appendfsync always if flush() has to mean durable",
        is_warning=True,
    )


def replication(facts: Facts, *, is_local: bool) -> list[Finding]:
    """Judge what the loss of the server's machine loses."""
    replicas = facts.number("connected_slaves")
    if facts.server.is_replica or replicas is None:
        return []
    subject = "replicas"
    wanted = facts.configs.get("min-replicas-to-write")
    if replicas == 0 and wanted not in (None, "0"):
        detail = f"min-replicas-to-write {wanted} and no replica: every append is refused"
        return [Finding(subject, False, detail, "connect a replica, or lower the number")]
    if replicas == 0:
        # A server beside its clients is one for development.
        detail = "none: the loss of its machine loses every stream"
        remedy = "" if is_local else "add a replica on another machine"
        return [Finding(subject, True, detail, remedy, is_warning=not is_local)]
    if wanted in (None, "0"):
        seen = "unknown" if wanted is None else "0"
        detail = (
            f"{replicas}, min-replicas-to-write {seen}: a primary that is cut off goes on "
            "accepting records, which the fail-over loses"
        )
        remedy = "set min-replicas-to-write 1 and min-replicas-max-lag 10"
        return [Finding(subject, True, detail, remedy, is_warning=True)]
    return [Finding(subject, True, f"{replicas}, min-replicas-to-write {wanted}")]
