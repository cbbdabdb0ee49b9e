"""Judges the facts about a server.

Design: docs/design/postgres.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from streamq.driver import Finding
from streamq_postgres._schema import SCHEMA_VERSION
from streamq_postgres._settings import PostgresSettings
from streamq_postgres.requests._dialing import targets_of

from ._facts import Facts

_LARGEST_SKEW_SECONDS = 2.0
_NEARLY = 0.9
_LONG_BACKLOG = 0.5

_warning = partial(Finding, ok=True, is_warning=True)


def judge(facts: Facts, settings: PostgresSettings, address: str) -> list[Finding]:
    """Return what is right and wrong with a server."""
    is_local = all(
        target.host.startswith("/") or target.host in ("localhost", "127.0.0.1", "::1")
        for target in targets_of(settings.parameters())
    )
    return [
        version(facts, address),
        role(facts),
        *schema(facts, settings),
        durability(facts, settings),
        vacuum(facts),
        connections(facts),
        *standbys(facts, is_local=is_local),
        clock(facts),
        *encryption(facts, is_local=is_local),
        notifications(facts),
    ]


def version(facts: Facts, address: str) -> Finding:
    """Judge the server's version."""
    number = f"{facts.server.version // 10_000}.{facts.server.version % 10_000}"
    return Finding("server", True, f"PostgreSQL {number} at {address}")


def role(facts: Facts) -> Finding:
    """Judge whether the server can be written to."""
    if facts.server.is_standby:
        return Finding(
            "role",
            False,
            "the server is a standby: streams can be read, and not written",
            "let STREAMQ_POSTGRES_URL name all servers, with target_session_attrs=read-write",
        )
    return Finding("role", True, "the server is a primary")


def schema(facts: Facts, settings: PostgresSettings) -> Iterator[Finding]:
    """Judge the schema, and our rights in it."""
    name, found = settings.schema_name, facts.server.schema_version
    subject = f"schema {name}"
    if not found:
        remedy = "run `streamq doctor --create`"
        if not facts.may_create:
            remedy += " as a role with CREATE on the database: ours lacks it"
        yield Finding(subject, False, "it does not exist, or has no table streams", remedy)
        return
    yield Finding(subject, True, f"version {found} of {SCHEMA_VERSION}")
    if facts.missing:
        yield Finding(
            "rights",
            False,
            f"we lack {'; '.join(facts.missing)}",
            "let the schema's owner grant them (the README of streamq-postgres lists all), or run "
            "`streamq doctor --create` as the owner; a process that only reads needs less",
        )
    else:
        yield Finding("rights", True, "we have all that are needed")


def durability(facts: Facts, settings: PostgresSettings) -> Finding:
    """Judge whether the server keeps what it has acknowledged."""
    fsync, pages = facts.configured["fsync"], facts.configured["full_page_writes"]
    wanted = settings.synchronous_commit
    commits = facts.configured["synchronous_commit"] if wanted == "server" else wanted
    detail = f"fsync {fsync}, full_page_writes {pages}, synchronous_commit {commits}"
    subject = "durability"
    if fsync != "on":
        return _warning(
            subject,
            detail=f"{detail}: a crash of the host may damage the database, "
            "and queues do not declare durable",
            remedy="set fsync = on",
        )
    if pages != "on":
        return _warning(
            subject,
            detail=f"{detail}: a crash of the host may leave torn pages",
            remedy="set full_page_writes = on, unless the file system writes pages whole",
        )
    if commits == "off":
        return _warning(
            subject,
            detail=f"{detail}: a crash may lose the last moments, and queues do not "
            "declare durable",
            remedy="set STREAMQ_POSTGRES_SYNCHRONOUS_COMMIT=on",
        )
    if not facts.server.is_durable:
        return _warning(
            subject,
            detail="a table of the schema is unlogged: a crash empties it",
            remedy="ALTER TABLE ... SET LOGGED",
        )
    return Finding(subject, True, detail)


def vacuum(facts: Facts) -> Finding:
    """Judge whether the room of removed rows is used again."""
    if facts.server.vacuums:
        return Finding("autovacuum", True, "on")
    return Finding(
        "autovacuum",
        False,
        "off: what is deleted stays in files that grow for ever; queues do not declare erases",
        "set autovacuum = on",
    )


def connections(facts: Facts) -> Finding:
    """Judge whether the server takes more connections."""
    used, most = facts.connections
    detail = f"{used} of {most}; a process of streamq takes three, and a fourth for moments"
    if used > _NEARLY * most:
        return _warning(
            "connections", detail=detail, remedy="raise max_connections, or put a pooler in front"
        )
    return Finding("connections", True, detail)


def standbys(facts: Facts, *, is_local: bool) -> Iterator[Finding]:
    """Judge what is left if the server's host is lost; not for a server on this host."""
    level, names = facts.configured["wal_level"], facts.configured["synchronous_standby_names"]
    detail = f"{facts.standbys} follow, wal_level {level}, synchronous_standby_names {names!r}"
    if is_local or facts.server.is_standby or (facts.standbys and names):
        yield Finding("standbys", True, detail)
    elif level == "minimal" or not facts.standbys:
        yield _warning(
            "standbys",
            detail=f"{detail}: if its host is lost, so are the streams",
            remedy="set wal_level = replica and add a standby",
        )
    else:
        yield _warning(
            "standbys",
            detail=f"{detail}: a failover may lose records that were acknowledged",
            remedy="set synchronous_standby_names, if that is not wanted",
        )


def clock(facts: Facts) -> Finding:
    """Judge the server's clock, by which streams expire."""
    ahead = facts.ahead_seconds
    side = "ahead of" if ahead > 0 else "behind"
    detail = f"{abs(ahead):.1f} s {side} this host's"
    if abs(ahead) > _LARGEST_SKEW_SECONDS:
        return _warning("clock", detail=detail, remedy="synchronise both hosts by NTP")
    return Finding("clock", True, detail)


def encryption(facts: Facts, *, is_local: bool) -> Iterator[Finding]:
    """Judge whether others can read what we send."""
    if facts.is_encrypted:
        yield Finding("encryption", True, "TLS, as far as the server or the pooler")
    elif is_local:
        yield Finding("encryption", True, "none, and none needed on this host")
    else:
        yield _warning(
            "encryption",
            detail="none: passwords and streams can be read on the way, unless a pooler encrypts",
            remedy="append ?sslmode=verify-full&sslrootcert=... to STREAMQ_POSTGRES_URL",
        )


def notifications(facts: Facts) -> Finding:
    """Judge whether readers are woken."""
    if facts.server.is_pooled:
        return _warning(
            "notifications",
            detail="a connection pooler is in between, so that none arrive and readers poll",
            remedy="connect readers to the server itself; if the pooler is in session mode, set "
            "STREAMQ_POSTGRES_POOLER=false",
        )
    if facts.backlog > _LONG_BACKLOG:
        return _warning(
            "notifications",
            detail=f"their queue is {facts.backlog:.0%} full: some session listens and is stuck in "
            "a transaction",
            remedy="end the session that pg_stat_activity shows as idle in transaction",
        )
    return Finding("notifications", True, "they wake readers")
