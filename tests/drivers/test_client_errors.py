"""The shared translation of a client's exceptions into streamq's errors."""

from __future__ import annotations

import asyncio
import types

import pytest

from streamq.driver import (
    AccessDeniedError,
    BackendError,
    BackendUnavailableError,
    ClosedError,
    ErrorRule,
    ErrorTable,
    StreamqError,
    exception_classes,
    translated_errors,
)


class ClientError(Exception):
    """Base of a client's exceptions."""


class LoginError(ClientError):
    """One that has a rule."""


TABLE = ErrorTable(
    "toy",
    (
        ErrorRule((LoginError,), AccessDeniedError, "{at} refuses us: {why}"),
        ErrorRule((OSError,), BackendUnavailableError, "cannot reach {at} ({why})"),
    ),
    client=(ClientError, OSError),
    reason=str,
    otherwise="{at} answered {kind}: {why}",
)


def translate(error: Exception, stream: str | None) -> StreamqError | None:
    """Translate as a driver does."""
    return TABLE.translate(error, stream, at="host:1")


@pytest.mark.parametrize(
    ("raised", "error", "message"),
    [
        (LoginError("no"), AccessDeniedError, "host:1 refuses us: no"),
        (ConnectionError("gone"), BackendUnavailableError, "cannot reach host:1 (gone)"),
        (ClientError("what?"), BackendError, "host:1 answered ClientError: what?"),
    ],
    ids=["rule", "subclass", "no-rule"],
)
def test_an_exception_of_the_client_becomes_an_error_of_streamq(
    raised: Exception, error: type[StreamqError], message: str
) -> None:
    """Retries and messages are decided by the class; the original stays visible as the cause."""
    with pytest.raises(StreamqError) as caught, translated_errors(translate, "tenant/name"):
        raise raised
    assert type(caught.value) is error
    assert str(caught.value) == message
    assert (caught.value.backend, caught.value.stream) == ("toy", "tenant/name")
    assert caught.value.__cause__ is raised


@pytest.mark.parametrize(
    "raised",
    [KeyError("a bug"), ClosedError("closed"), asyncio.CancelledError()],
    ids=["bug", "streamq", "cancelled"],
)
def test_everything_else_passes_unchanged(raised: BaseException) -> None:
    """A bug that looked like a failing server would be repeated for thirty seconds."""
    with pytest.raises(type(raised)) as caught, translated_errors(translate):
        raise raised
    assert caught.value is raised


def test_no_stream_is_no_stream() -> None:
    """The word None in a message would name a stream that does not exist."""
    with pytest.raises(AccessDeniedError) as caught, translated_errors(translate):
        raise LoginError
    assert caught.value.stream is None


def test_the_exceptions_of_a_module_are_found() -> None:
    """A client that adds an exception is covered without a change of the driver."""
    module = types.ModuleType("errors")
    vars(module).update(ClientError=ClientError, LoginError=LoginError, table=TABLE, name="errors")
    vars(module)["Other"] = KeyboardInterrupt  # no Exception
    assert set(exception_classes(module)) == {ClientError, LoginError}
