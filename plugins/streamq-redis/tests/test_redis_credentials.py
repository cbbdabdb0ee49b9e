"""Credentials: a password that is rotated while streams are written and read."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from redis_streams import ACL_OPTIONAL, ACL_RULES, Bare, OpenAt, read_soon, run
from streamq import (
    AccessDeniedError,
    BackendUnavailableError,
    ConfigurationError,
    Settings,
    StreamId,
    open_reader,
    open_writer,
)
from streamq.driver import Entry
from streamq_redis.embedded import EmbeddedRedis

SETTINGS = Settings(retry_seconds=60)


class User:
    """A user of the server whose password can be rotated."""

    def __init__(self, bare: Bare, port: int) -> None:
        self.name = f"user-{secrets.token_hex(4)}"
        self.password = "first"
        self.bare = bare
        self._port = port

    def url(self, password: str | None = None) -> str:
        login = self.name if password is None else f"{self.name}:{password}"
        return f"redis://{login}@127.0.0.1:{self._port}/0"

    async def rotate(self, password: str) -> None:
        """Set another password, and cut every connection that logged in with the old one."""
        rules = ("reset", "on", f">{password}", *ACL_RULES, *ACL_OPTIONAL)
        await run(self.bare, "ACL", "SETUSER", self.name, *rules)
        await run(self.bare, "CLIENT", "KILL", "USER", self.name)
        self.password = password

    async def was_refused(self) -> bool:
        return any(
            each["username"] == self.name and each["reason"] == "auth"
            for each in await self.bare.acl_log()
        )


@pytest.fixture
async def user(bare: Bare, server: EmbeddedRedis) -> AsyncIterator[User]:
    made = User(bare, server.port)
    await made.rotate("first")
    yield made
    await run(bare, "ACL", "DELUSER", made.name)


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
        while not await user.was_refused():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        path.write_text("second\n")
        await writer.finish()
        assert await following == ["before", "after"]
    assert "second" not in caplog.text


async def test_callable_is_asked_again_after_a_refusal(
    open_at: OpenAt, user: User, stream: StreamId
) -> None:
    """A source that has the new password already makes the rotation go unnoticed."""
    answers = ["first", "first", "first", "first"]

    async def credentials() -> dict[str, str]:
        return {"username": user.name, "password": answers.pop() if answers else user.password}

    queue = await open_at("redis://" + user.url().rpartition("@")[2], credentials=credentials)
    await queue.append(stream, [Entry(1, 0, b"x")])
    await user.rotate("second")
    await until_cut(user)
    answers[:] = ["first"]
    await queue.append(stream, [Entry(1, 1, b"y")])
    assert not answers, "the old one was not offered first"
    assert len(await read_soon(queue, stream)) == 2


async def test_refusal_is_retried_only_if_other_credentials_may_come(
    open_at: OpenAt, user: User, stream: StreamId
) -> None:
    """A wrong password in a URL is wrong for good; one that a source returns may be too old."""
    with pytest.raises(AccessDeniedError) as of_url:
        await open_at(user.url("wrong"))
    with pytest.raises(AccessDeniedError) as of_source:
        await open_at(user.url(), credentials=lambda: {"password": "wrong"})
    assert (of_url.value.retryable, of_source.value.retryable) == (False, True)
    queue = await open_at(user.url("first"))
    await user.rotate("second")
    await until_cut(user)
    with pytest.raises(AccessDeniedError) as running:
        await queue.append(stream, [Entry(1, 0, b"x")])
    assert not running.value.retryable


async def test_lookout_asks_for_no_credentials(open_at: OpenAt, user: User) -> None:
    """It connects four times a minute, in every process; a secret store counts its calls."""
    asked = 0

    def credentials() -> dict[str, str]:
        nonlocal asked
        asked += 1
        return {"password": user.password}

    async def connections() -> int:
        return int((await user.bare.info("stats"))["total_connections_received"])

    await open_at(user.url(), credentials=credentials, lookup_seconds=0.1)
    before = await connections()
    async with asyncio.timeout(20):
        while await connections() < before + 3:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    assert asked == 1
    assert not await user.was_refused()


async def test_source_that_fails_is_an_error_of_streamq(
    open_at: OpenAt, user: User, stream: StreamId
) -> None:
    """At the first call it is a wrong setting, later a secret store that is down."""
    fails = True

    def credentials() -> dict[str, str]:
        if fails:
            raise OSError("the store is down")
        return {"password": user.password}

    with pytest.raises(ConfigurationError, match="STREAMQ_REDIS_CREDENTIALS: OSError: the store"):
        await open_at(user.url(), credentials=credentials)
    fails = False
    queue = await open_at(user.url(), credentials=credentials)
    fails = True
    await user.rotate("second")
    await until_cut(user)
    with pytest.raises(BackendUnavailableError, match="the store is down"):
        await queue.append(stream, [Entry(1, 0, b"x")])
    fails = False
    await queue.append(stream, [Entry(1, 0, b"x")])


async def until_cut(user: User) -> None:
    """Wait until the server has no connection of the user, and the queue has noticed."""
    async with asyncio.timeout(20):
        while any(each["user"] == user.name for each in await user.bare.client_list()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
