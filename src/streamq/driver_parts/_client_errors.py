"""Turns the exceptions of a driver's client library into streamq's errors.

Design: docs/design/contract.md.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType, TracebackType

from streamq._errors import BackendError, StreamqError


class translated_errors:
    """Context manager that turns the exceptions of a client into streamq's errors.

    Whatever the function has no error for is raised unchanged: a bug stays visible as what it is.
    So are errors of streamq, and what is no :class:`Exception` (cancellation). The original
    exception is the cause of the new one.

    It is a class and not a generator, because it is entered for every append and read: entering
    costs nothing, and the function is called for exceptions only.

    Args:
        translate: Returns streamq's error for an exception and the stream's name, or ``None`` if
            it is no exception of the client.
        stream: Stream that the call is about, if it is about one.
    """

    __slots__ = ("_stream", "_translate")

    def __init__(
        self,
        translate: Callable[[Exception, str | None], StreamqError | None],
        stream: object = None,
    ) -> None:
        self._translate = translate
        self._stream = stream

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        if exc is None or isinstance(exc, StreamqError) or not isinstance(exc, Exception):
            return
        error = self._translate(exc, None if self._stream is None else str(self._stream))
        if error is not None:
            raise error from exc


def for_stream(
    error: StreamqError, stream: str | None, *, backend: str | None = None
) -> StreamqError:
    """Return a copy of an error that several calls share, for one of them.

    Args:
        error: The error; it stays as it is, and the copy has the same cause.
        stream: Stream of the call, as ``tenant/name``, unless the error names another.
        backend: The driver's name, unless the error names another.
    """
    copy = type(error).__new__(type(error), *error.args)
    vars(copy).update(vars(error))
    copy.stream = error.stream or stream or None
    copy.backend = error.backend or backend
    copy.__cause__ = error.__cause__
    return copy


@dataclass(frozen=True, slots=True)
class ErrorRule:
    """One line of an :class:`ErrorTable`.

    Attributes:
        causes: Exceptions of the client that it is about.
        error: Error of streamq that is raised instead.
        message: Template of its message: ``{why}`` is the reason that the table's function returns,
            ``{kind}`` the name of the exception's class. :meth:`ErrorTable.translate` takes more.
    """

    causes: tuple[type[Exception], ...]
    error: type[StreamqError]
    message: str


class ErrorTable:
    """Finds streamq's error for an exception of a client, by rules.

    Args:
        backend: The driver's name.
        rules: The first match wins, so that subclasses come before their bases.
        client: Every exception that the client and the network raise; an exception that is none of
            them has no error.
        reason: Returns an exception's own words, for the message: in one line, without credentials.
        otherwise: Template of the message of a ``BackendError``, for exceptions without a rule.
    """

    __slots__ = ("_backend", "_client", "_otherwise", "_reason", "_rules")

    def __init__(
        self,
        backend: str,
        rules: Iterable[ErrorRule],
        *,
        client: tuple[type[Exception], ...],
        reason: Callable[[Exception], str],
        otherwise: str,
    ) -> None:
        self._backend = backend
        self._rules = tuple(rules)
        self._client = client
        self._reason = reason
        self._otherwise = otherwise

    def translate(
        self, error: Exception, stream: str | None = None, **fields: str
    ) -> StreamqError | None:
        """Return streamq's error for an exception; ``None`` if it is none of the client.

        Args:
            error: The exception.
            stream: Stream that the call was about, as ``tenant/name``.
            fields: More values for the templates, such as the server's address.
        """
        if not isinstance(error, self._client):
            return None
        kind: type[StreamqError] = BackendError
        message = self._otherwise
        for rule in self._rules:
            if isinstance(error, rule.causes):
                kind, message = rule.error, rule.message
                break
        text = message.format(why=self._reason(error), kind=type(error).__name__, **fields)
        return kind(text, backend=self._backend, stream=stream)


def exception_classes(module: ModuleType) -> tuple[type[Exception], ...]:
    """Return every exception class that a client's module of errors has."""
    return tuple(
        found
        for found in vars(module).values()
        if inspect.isclass(found) and issubclass(found, Exception)
    )
