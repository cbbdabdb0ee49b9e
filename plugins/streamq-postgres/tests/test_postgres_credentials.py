"""Credentials and encryption: a password that is rotated in use, and certificates."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from psycopg import sql

from postgres_servers import LOCKED, OpenAt, StartServer, ask, directory_for_servers, read_soon
from streamq import (
    AccessDeniedError,
    BackendUnavailableError,
    Settings,
    StreamId,
    open_reader,
    open_writer,
)
from streamq.driver import Entry
from streamq_postgres.embedded import EmbeddedPostgres, user_for_servers

SETTINGS = Settings(retry_seconds=60)


@dataclass
class User:
    """A user of the server whose password can be rotated."""

    server: EmbeddedPostgres

    def url(self, password: str = "") -> str:
        login = f"{LOCKED}:{password}" if password else LOCKED
        return f"postgresql://{login}@{self.server.address}/postgres"

    async def rotate(self, password: str) -> None:
        """Set another password, and end every session that logged in with the old one."""
        change = sql.SQL("ALTER ROLE {} PASSWORD {}")
        name, secret = sql.Identifier(LOCKED), sql.Literal(password)
        await ask(self.server.url, change.format(name, secret))
        end = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = %s"
        await ask(self.server.url, end, LOCKED)

    async def was_refused(self) -> bool:
        ((log,),) = await ask(self.server.url, "SELECT pg_read_file('../server.log')")
        return f'password authentication failed for user "{LOCKED}"' in log


@pytest.fixture
async def user(start_server: StartServer) -> User:
    """Start a server that asks a user for the password "first"."""
    made = User(start_server())
    await ask(made.server.url, sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(LOCKED)))
    grant = sql.SQL("GRANT CREATE ON DATABASE postgres TO {}")
    await ask(made.server.url, grant.format(sql.Identifier(LOCKED)))
    await made.rotate("first")
    return made


async def test_rotated_password_file_is_read_again(
    open_at: OpenAt, user: User, stream: StreamId, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The server gets the new password first, the file seconds later, as secret stores do it."""
    path = tmp_path / "password"
    path.write_text("first\n")
    queue = await open_at(user.url(), password_file=path)
    writer = await open_writer(stream, queue=queue, settings=SETTINGS)
    reader = await open_reader(stream, queue=queue, settings=SETTINGS)
    following = asyncio.create_task(reader.collect())
    await writer.send_chunk("before")
    await writer.flush()
    await user.rotate("second")
    await writer.send_chunk("after")
    async with asyncio.timeout(20):
        while not await user.was_refused():  # noqa: ASYNC110 - the server says so when asked
            await asyncio.sleep(0.01)
        path.write_text("second\n")
        await writer.finish()
        assert await following == ["before", "after"]
    assert "second" not in caplog.text


async def test_callable_is_asked_again_after_a_refusal(
    open_at: OpenAt, user: User, stream: StreamId
) -> None:
    """A source that has the new password already makes the rotation go unnoticed."""
    answers = ["first"]

    async def credentials() -> dict[str, str]:
        return {"username": LOCKED, "password": answers.pop() if answers else current}

    current = "first"
    place = user.url().rpartition("@")[2]
    queue = await open_at(f"postgresql://{place}", credentials=credentials, lookup_seconds=600)
    await queue.append(stream, [Entry(1, 0, b"x")])
    current = "second"
    await user.rotate(current)
    answers[:] = ["first"]
    async with asyncio.timeout(20):
        while True:
            try:
                await queue.append(stream, [Entry(1, 1, b"y")])
            except BackendUnavailableError:  # the connection that was ended
                continue
            break
    assert not answers, "the old one was not offered first"
    assert len(await read_soon(queue, stream)) == 2


async def test_refusal_is_retried_only_if_other_credentials_may_come(
    open_at: OpenAt, user: User
) -> None:
    """A wrong password in a URL is wrong for good; one that a source returns may be too old."""
    with pytest.raises(AccessDeniedError) as of_url:
        await open_at(user.url("wrong-in-url"))
    with pytest.raises(AccessDeniedError) as of_source:
        await open_at(user.url(), credentials=lambda: {"password": "wrong-in-source"})
    assert (of_url.value.retryable, of_source.value.retryable) == (False, True)
    assert "wrong-in" not in f"{of_url.value} {of_source.value}"


async def test_certificate_has_to_name_the_host_that_the_url_names(
    open_at: OpenAt, start_server: StartServer, stream: StreamId, tmp_path: Path
) -> None:
    """The driver resolves names itself: the address must not stand in for the name."""
    authority, certificate = trustme.CA(), tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(certificate)
    issued = authority.issue_cert("localhost")
    with directory_for_servers() as directory:
        key, chain = directory / "key.pem", directory / "chain.pem"
        issued.private_key_pem.write_to_path(key)
        issued.cert_chain_pems[0].write_to_path(chain)
        key.chmod(0o600)
        if (owner := user_for_servers()) is not None:
            os.chown(key, owner.pw_uid, owner.pw_gid)
        options = [("ssl", "on"), ("ssl_cert_file", chain), ("ssl_key_file", key)]
        arguments = [each for name, value in options for each in ("-c", f"{name}={value}")]
        server = start_server(arguments=arguments)
        query = f"sslmode=verify-full&sslrootcert={certificate}"
        queue = await open_at(f"postgresql://postgres@localhost:{server.port}/postgres?{query}")
        read = read_soon(queue, stream)
        await queue.append(stream, [Entry(1, 0, bytes(300_000))])
        assert [len(record.data) for record in await read] == [300_000]
        session = "SELECT bool_and(s.ssl) FROM pg_stat_ssl AS s JOIN pg_stat_activity USING (pid)"
        session += " WHERE application_name = 'streamq'"
        assert await ask(server.url, session) == [(True,)]
        with pytest.raises(BackendUnavailableError, match=r"127\.0\.0\.1"):
            await open_at(f"{server.url}?{query}")  # an address, which it does not name
        other = tmp_path / "other.pem"
        trustme.CA().cert_pem.write_to_path(other)
        with pytest.raises(BackendUnavailableError, match="certificate verify failed"):
            await open_at(
                f"postgresql://postgres@localhost:{server.port}/postgres"
                f"?sslmode=verify-full&sslrootcert={other}"
            )
        await queue.aclose()
