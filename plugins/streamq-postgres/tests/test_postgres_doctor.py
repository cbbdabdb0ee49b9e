"""Doctor: what people get wrong on a PostgreSQL server, and what the message tells them to do."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import timedelta

import pytest

from postgres_servers import OpenAt, Pgbouncer, StartServer, ask, settings_for
from streamq import AccessDeniedError, ConfigurationError
from streamq.driver import Entry, Finding, LatencyClass, QueueOptions, StreamId
from streamq_postgres import PostgresDriver
from streamq_postgres._schema import SCHEMA_VERSION
from streamq_postgres.doctor._examination import clock, encryption, standbys
from streamq_postgres.doctor._facts import Facts
from streamq_postgres.requests._connection import Server

OPTIONS = QueueOptions(ttl=timedelta(hours=1))
RIGHTS = (
    "GRANT USAGE ON SCHEMA streamq TO worker",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA streamq TO worker",
)
"""The rights that the README of this plugin asks operators to grant."""


async def examine(url: str, **options: object) -> dict[str, Finding]:
    found = await PostgresDriver.examine(OPTIONS, settings_for(url, **options))
    for each in found:
        assert each.detail
        assert bool(each.remedy) == (not each.ok or each.is_warning)
    return {each.subject: each for each in found}


def verdict(finding: Finding) -> str:
    return "wrong" if not finding.ok else "warn" if finding.is_warning else "ok"


async def test_good_server_has_no_problem(start_server: StartServer) -> None:
    """A warning that always appears is read by nobody."""
    server = start_server(fsync=True)
    assert verdict((await examine(server.url))["schema streamq"]) == "wrong"
    assert await PostgresDriver.provision(OPTIONS, settings_for(server.url))
    assert {verdict(each) for each in (await examine(server.url)).values()} == {"ok"}
    assert await PostgresDriver.provision(OPTIONS, settings_for(server.url)) == ()


@pytest.mark.parametrize(
    ("arguments", "subject", "expected", "text"),
    [
        (("-c", "autovacuum=off"), "autovacuum", "wrong", "erases"),
        (("-c", "synchronous_commit=off"), "durability", "warn", "SYNCHRONOUS_COMMIT=on"),
        (("-c", "full_page_writes=off"), "durability", "warn", "torn pages"),
        (("-c", "fsync=off"), "durability", "warn", "do not declare durable"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_problem_is_found_and_a_remedy_named(
    start_server: StartServer, arguments: Sequence[str], subject: str, expected: str, text: str
) -> None:
    """Each of these servers looks healthy, and loses or keeps what it should not."""
    found = (await examine(start_server(fsync=True, arguments=arguments).url))[subject]
    assert verdict(found) == expected
    assert text in f"{found.detail} {found.remedy}"


async def test_queue_declares_only_what_its_server_keeps(
    start_server: StartServer, open_at: OpenAt
) -> None:
    """What `streamq backends` and `require=` go by is the open queue, not the driver."""
    server = start_server(fsync=True)
    assert (await open_at(server.url)).capabilities.durable
    lax = await open_at(server.url, synchronous_commit="off")
    assert not lax.capabilities.durable
    await lax.append(StreamId("t", "s"), [Entry(1, 0, b"x"), Entry(1, 1, b"y")])
    await ask(server.url, "ALTER TABLE streamq.records SET UNLOGGED")
    assert not (await open_at(server.url)).capabilities.durable
    await ask(server.url, "ALTER SYSTEM SET autovacuum = off")
    await ask(server.url, "SELECT pg_reload_conf()")
    assert not (await open_at(server.url)).capabilities.erases


async def test_role_without_create_works_once_the_schema_exists(
    start_server: StartServer, open_at: OpenAt, stream: StreamId
) -> None:
    """Administrators create schemas, and give workers nothing but rows."""
    server = start_server()
    await ask(server.url, "CREATE ROLE worker LOGIN")
    url = server.url.replace("postgres@", "worker@")
    with pytest.raises(AccessDeniedError, match="permission denied for database"):
        await open_at(url)
    assert await PostgresDriver.provision(OPTIONS, settings_for(server.url))
    await ask(server.url, RIGHTS[0])
    lacking = (await examine(url))["rights"]
    assert verdict(lacking) == "wrong"
    assert "INSERT" in lacking.detail
    await ask(server.url, RIGHTS[1])
    assert verdict((await examine(url))["rights"]) == "ok"
    queue = await open_at(url)
    await queue.append(stream, [Entry(1, 0, b"x")])
    await queue.delete(stream)
    assert await queue.sweep() == 0


async def test_schema_of_a_newer_streamq_is_refused(
    start_server: StartServer, open_at: OpenAt
) -> None:
    """It may store what this one would damage."""
    server = start_server()
    await open_at(server.url, schema_name="other tenant's")
    await open_at(server.url)
    comment = f"COMMENT ON TABLE streamq.streams IS 'streamq schema version {SCHEMA_VERSION + 1}'"
    await ask(server.url, comment)
    with pytest.raises(ConfigurationError, match="upgrade streamq"):
        await open_at(server.url)
    await ask(server.url, "COMMENT ON TABLE streamq.streams IS 'rivers'")
    with pytest.raises(ConfigurationError, match="another application"):
        await open_at(server.url)


async def test_pooler_in_transaction_mode_is_noticed_and_one_in_session_mode_can_be_named(
    start_server: StartServer, open_at: OpenAt, stream: StreamId
) -> None:
    """Notifications do not pass a pooler in transaction mode; readers must not wait for them."""
    server = start_server()
    with Pgbouncer(server) as pooler:
        queue = await open_at(pooler.url)
        assert queue.capabilities.latency is LatencyClass.TENS_OF_MILLISECONDS
        assert verdict((await examine(pooler.url))["notifications"]) == "warn"
        for index in range(20):  # psycopg would prepare the statement
            await queue.append(stream, [Entry(1, index, b"x")])
    with Pgbouncer(server, mode="session") as pooler:
        queue = await open_at(pooler.url, pooler=False, poll_seconds=60.0)
        assert queue.capabilities.latency is LatencyClass.MILLISECONDS
        (first, *_) = await queue.read(stream, "", max_records=1, max_bytes=9, max_wait=0)
        assert first.position == "1-0"


def test_judgements_that_no_server_here_causes() -> None:
    """Another clock, no standby, and a connection over a network without TLS."""
    server = Server(150_000, "now", False, False, True, True, 1)
    configured = {"wal_level": "replica", "synchronous_standby_names": ""}
    facts = Facts(server, configured, ahead_seconds=9.0)
    assert (verdict(clock(facts)), "9.0 s ahead" in clock(facts).detail) == ("warn", True)
    assert verdict(clock(dataclasses.replace(facts, ahead_seconds=-0.5))) == "ok"
    assert verdict(next(encryption(facts, is_local=False))) == "warn"
    assert verdict(next(standbys(facts, is_local=False))) == "warn"
    followed = dataclasses.replace(facts, standbys=1)
    assert "may lose" in next(standbys(followed, is_local=False)).detail
