"""Every error that redis-py knows becomes one of streamq's."""

from __future__ import annotations

import asyncio
import inspect
import os
import re
from datetime import timedelta
from functools import partial

import pytest
import redis.exceptions as rx
from pydantic import SecretStr

from streamq import (
    AccessDeniedError,
    BackendError,
    BackendUnavailableError,
    ClosedError,
    StorageFullError,
    StreamqError,
)
from streamq.driver import QueueOptions, translated_errors
from streamq_redis import RedisDriver, RedisSettings
from streamq_redis._errors import to_streamq

EXPORTED = {
    name: found
    for name, found in vars(rx).items()
    if inspect.isclass(found) and issubclass(found, Exception)
}
DENIED = {
    "AuthenticationError",
    "AuthenticationWrongNumberOfArgsError",
    "AuthorizationError",
    "NoPermissionError",
}
UNAVAILABLE = {
    "BusyLoadingError",
    "ClusterDownError",
    "ConnectionError",
    "ExternalAuthProviderError",
    "MasterDownError",
    "MaxConnectionsError",
    "ReadOnlyError",
    "TimeoutError",
    "TryAgainError",
}


translate = partial(to_streamq, address="db.example:6379")


def make(kind: type[Exception]) -> Exception:
    if issubclass(kind, rx.AskError):
        return kind("123 127.0.0.1:7000")
    return kind("some reason")


@pytest.mark.parametrize("name", sorted(EXPORTED))
def test_every_exported_exception_is_mapped(name: str) -> None:
    """A client error that slips through unmapped ends a worker with a foreign traceback."""
    with pytest.raises(StreamqError) as caught, translated_errors(translate, "tenant/name"):
        raise make(EXPORTED[name])
    error = caught.value
    expected = (
        AccessDeniedError
        if name in DENIED
        else StorageFullError
        if name == "OutOfMemoryError"
        else BackendUnavailableError
        if name in UNAVAILABLE
        else BackendError
    )
    assert (expected, "redis", "tenant/name") == (type(error), error.backend, error.stream)
    assert "db.example:6379" in str(error)
    assert isinstance(error.__cause__, EXPORTED[name])


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("WRONGPASS invalid username-password pair", AccessDeniedError),
        ("NOAUTH Authentication required.", AccessDeniedError),
        ("NOPERM this user has no permissions", AccessDeniedError),
        ("OOM command not allowed when used memory > 'maxmemory'.", StorageFullError),
        ("MISCONF Redis is configured to save RDB snapshots", StorageFullError),
        ("READONLY You can't write against a read only replica.", BackendUnavailableError),
        ("LOADING Redis is loading the dataset in memory", BackendUnavailableError),
        ("BUSY Redis is busy running a script.", BackendUnavailableError),
        ("NOREPLICAS Not enough good replicas to write.", BackendUnavailableError),
        ("UNBLOCKED force unblock from blocking operation", BackendUnavailableError),
        ("MASTERDOWN Link with MASTER is down", BackendUnavailableError),
        ("CLUSTERDOWN The cluster is down", BackendUnavailableError),
        ("ERR max number of clients reached", BackendUnavailableError),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", BackendError),
        ("MOVED 3999 127.0.0.1:6381", BackendError),
        ("CROSSSLOT Keys in request don't hash to the same slot", BackendError),
        ("ERR something else", BackendError),
    ],
)
async def test_every_kind_of_error_reply_is_mapped(
    reply: str, expected: type[StreamqError]
) -> None:
    """The server's answer decides between waiting, stopping and calling an operator."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(f"-{reply}\r\n".encode() * len(re.findall(rb"\*\d+\r\n", data)))
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(expected) as caught:
            await RedisDriver.open(
                QueueOptions(ttl=timedelta(minutes=1)), RedisSettings(url=SecretStr(url))
            )
    assert expected is type(caught.value)


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), TimeoutError(), OSError(5)])
def test_network_errors_are_retryable(error: OSError) -> None:
    """streamq repeats calls that a broken network has interrupted."""
    mapped = translate(error)
    assert isinstance(mapped, BackendUnavailableError)
    assert mapped.retryable


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("Error 111 connecting to db:6379. Connect call failed ('10.0.0.7', 6379).", 111),
        (
            "Error Multiple exceptions: [Errno 111] Connect call failed ('::1', 6379, 0, 0), "
            "[Errno 111] Connect call failed ('10.0.0.7', 6379) connecting to db:6379.",
            111,
        ),
        ("Error -2 connecting to db:6379. Name or service not known.", "Name or service not known"),
        ("Connection closed by server.", "Connection closed by server"),
    ],
)
def test_the_address_is_named_once(text: str, why: str | int) -> None:
    """A line that names it three times hides the two words that give the reason."""
    reason = os.strerror(why) if isinstance(why, int) else why
    error = to_streamq(EXPORTED["ConnectionError"](text), address="db:6379")
    assert str(error) == f"cannot reach Redis at db:6379 ({reason}); is it running? set " + (
        "STREAMQ_REDIS_URL"
    )


def test_other_errors_pass_unchanged() -> None:
    """A bug must not look like a broken network, and errors of streamq are right already."""
    with pytest.raises(KeyError), translated_errors(translate):
        raise KeyError("x")
    with pytest.raises(ClosedError), translated_errors(translate):
        raise ClosedError("closed")
