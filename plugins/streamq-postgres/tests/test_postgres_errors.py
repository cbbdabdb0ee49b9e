"""Every error that psycopg and the server know becomes one of streamq's."""

from __future__ import annotations

import asyncio
import inspect
from functools import partial

import psycopg
import psycopg.errors as pe
import pytest

from postgres_servers import LOCKED, OpenAt, StartServer, ask, settings_for
from streamq import (
    AccessDeniedError,
    BackendError,
    BackendUnavailableError,
    ClosedError,
    ConfigurationError,
    StorageFullError,
    StreamId,
    StreamqError,
    ThrottledError,
)
from streamq.driver import Entry, translated_errors
from streamq_postgres._errors import _BY_CLASS, RefusedError, code_of_text, to_streamq
from streamq_postgres.embedded import EmbeddedPostgres

CLASSES = {
    name: found
    for name, found in vars(pe).items()
    if inspect.isclass(found) and issubclass(found, (pe.Error, pe.Warning))
}
OTHERWISE = {
    "08": BackendUnavailableError,
    "28": AccessDeniedError,
    "3D": ConfigurationError,
    "40": BackendUnavailableError,
    "53": BackendUnavailableError,
    "57": BackendUnavailableError,
    "72": BackendUnavailableError,
}
"""What the codes of a class become; those of the other classes become BackendError."""
EXCEPTIONS = {
    "ReadOnlySqlTransaction": BackendUnavailableError,
    "IdleInTransactionSessionTimeout": BackendUnavailableError,
    "TransactionTimeout": BackendUnavailableError,
    "InvalidSqlStatementName": BackendUnavailableError,
    "DuplicatePreparedStatement": BackendUnavailableError,
    "InsufficientPrivilege": AccessDeniedError,
    "DiskFull": StorageFullError,
    "TooManyConnections": ThrottledError,
    "ObjectInUse": BackendUnavailableError,
    "LockNotAvailable": BackendUnavailableError,
    "DatabaseDropped": ConfigurationError,
    # Without a code: the connection is lost.
    **dict.fromkeys(
        ("OperationalError", "InterfaceError", "ConnectionTimeout", "CancellationTimeout"),
        BackendUnavailableError,
    ),
    **dict.fromkeys(("_WaitTimeout", "PipelineAborted"), BackendUnavailableError),
}

translate = partial(to_streamq, address="db.example:5432")


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_every_class_of_psycopg_is_mapped(name: str) -> None:
    """A client error that slips through unmapped ends a worker with a foreign traceback."""
    kind = CLASSES[name]
    with pytest.raises(StreamqError) as caught, translated_errors(translate, "tenant/name"):
        raise kind("some reason")
    code = getattr(kind, "sqlstate", None) or ""
    expected = EXCEPTIONS.get(name, OTHERWISE.get(code[:2], BackendError))
    error = caught.value
    assert (expected, "postgres", "tenant/name") == (type(error), error.backend, error.stream)
    assert "db.example:5432" in str(error)
    assert "some reason" in str(error)


def test_every_class_of_sqlstates_has_a_rule() -> None:
    """A code that psycopg learns later has at least the meaning of its class."""
    codes = {getattr(each, "sqlstate", None) for each in CLASSES.values()}
    assert {code[:2] for code in codes if code} == set(_BY_CLASS)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('FATAL:  password authentication failed for user "x"', "28P01"),
        ("fe_sendauth: no password supplied", "28P01"),
        ('FATAL:  no pg_hba.conf entry for host "::1", user "x", no encryption', "28000"),
        ('FATAL:  role "x" does not exist', "28000"),
        ('FATAL:  database "x" does not exist', "3D000"),
        ("FATAL:  sorry, too many clients already", "53300"),
        ("FATAL:  remaining connection slots are reserved for superusers", "53300"),
        ("FATAL:  the database system is starting up", "57P03"),
        ("FATAL:  the database system is shutting down", "57P03"),
        ("session is read-only", "25006"),
        ("server is in hot standby mode", "25006"),
        ("FATAL:  no more connections allowed (max_client_conn)", "53300"),
        ("Connection refused", ""),
    ],
)
def test_refused_connection_has_the_code_that_libpq_drops(text: str, code: str) -> None:
    """The server states why it refuses, and libpq passes on the words alone."""
    assert code_of_text(text) == code
    expected = to_streamq(RefusedError(text, code), address="db:5432")
    assert type(expected) is {
        "28": AccessDeniedError,
        "3D": ConfigurationError,
        "53": ThrottledError,
        "57": BackendUnavailableError,
        "25": BackendUnavailableError,
        "": BackendUnavailableError,
    }.get(code[:2])


def test_other_errors_pass_unchanged() -> None:
    """A bug must not look like a broken network, and errors of streamq are right already."""
    with pytest.raises(KeyError), translated_errors(translate):
        raise KeyError("x")
    with pytest.raises(ClosedError), translated_errors(translate):
        raise ClosedError("closed")


@pytest.mark.parametrize(
    ("place", "expected", "text"),
    [
        ("postgres@{address}/nowhere", ConfigurationError, "nowhere"),
        ("nobody@{address}/postgres", AccessDeniedError, "nobody"),
        (f"{LOCKED}@{{address}}/postgres", AccessDeniedError, "no password"),
        ("postgres@{address}/postgres?sslmode=require", BackendUnavailableError, "SSL"),
        ("postgres@127.0.0.1:1/postgres", BackendUnavailableError, "127.0.0.1:1"),
        ("postgres@no.such.host.test/postgres", BackendUnavailableError, "no.such.host.test"),
    ],
)
async def test_server_that_takes_nobody_in_is_told_why(
    server: EmbeddedPostgres,
    open_at: OpenAt,
    place: str,
    expected: type[StreamqError],
    text: str,
) -> None:
    """The first start of a worker fails for one of these, and its user has one line to go by."""
    with pytest.raises(expected, match=text) as caught:
        await open_at(f"postgresql://{place.format(address=server.address)}")
    assert type(caught.value) is expected


async def test_too_many_connections_are_throttling(
    start_server: StartServer, open_at: OpenAt
) -> None:
    """streamq waits for a busy server when it opens, and reports a missing one at once."""
    server = start_server(arguments=("-c", "max_connections=5"))
    await ask(server.url, "CREATE ROLE plain LOGIN")
    await (await open_at(server.url)).append(StreamId("t", "s"), [Entry(1, 0, b"x")])
    with pytest.raises(ThrottledError):  # three connections are for superusers alone
        await open_at(server.url.replace("postgres@", "plain@"))


async def test_server_that_shuts_down_is_unavailable_and_the_next_call_connects_again(
    start_server: StartServer, open_at: OpenAt, stream: StreamId
) -> None:
    """An operator restarts the server: 57P01, and then 57P03 or a refused connection."""
    server = start_server()
    queue = await open_at(server.url)
    await queue.append(stream, [Entry(1, 0, b"x")])
    await ask(
        server.url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'streamq'",
    )
    with pytest.raises(BackendUnavailableError):
        await queue.append(stream, [Entry(1, 1, b"y")])
    await queue.append(stream, [Entry(1, 1, b"y")])
    assert (await queue.describe(stream)).records == 2


async def test_locked_stream_fails_in_time_and_no_other_one(
    server: EmbeddedPostgres, open_at: OpenAt, stream: StreamId
) -> None:
    """An operator's open transaction must not stop every writer of a process."""
    other = StreamId(stream.tenant, "other")
    queue = await open_at(server.url, operation_timeout_seconds=2.0)
    for each in (stream, other):
        await queue.append(each, [Entry(1, 0, b"x")])
    async with await psycopg.AsyncConnection.connect(server.url) as client:
        await client.execute(
            "SELECT 1 FROM streamq.streams WHERE tenant = %s AND name = %s FOR UPDATE",
            [stream.tenant, stream.name.encode()],
        )
        calls = [queue.append(each, [Entry(1, 1, b"y")]) for each in (other, stream, other)]
        first, locked, again = await asyncio.gather(*calls, return_exceptions=True)
    assert (first, again) == (None, None)
    assert isinstance(locked, BackendUnavailableError)
    assert "lock timeout" in str(locked)
    await queue.append(stream, [Entry(1, 1, b"y")])


def test_no_text_of_the_settings_has_the_password() -> None:
    """Settings are printed by `streamq config`, and in tracebacks."""
    settings = settings_for("postgresql://me:hunter2@db/x?password=hunter3")
    assert "hunter" not in f"{settings} {settings!r}"
    with pytest.raises(ValueError, match="must be postgresql://") as caught:
        settings_for("postgresql://me:hunter2@db:none/x?nonsense=hunter3")
    assert "hunter" not in str(caught.value)
