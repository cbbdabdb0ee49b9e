"""Decides what a check has seen: each helper fails with what was expected, seen, and the cause.

A failure is a :class:`BrokenPromiseError`. The plugin adds the sentence of the contract.

Design: docs/design/testing.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import TracebackType
from typing import Generic, NoReturn, Self, TypeVar

from streamq.testing._broken_promise import BrokenPromiseError
from streamq.testing._shown import shown

from ._differences import difference

E = TypeVar("E", bound=BaseException)


def broken(
    subject: str,
    *,
    expected: object,
    seen: object,
    details: Sequence[str] = (),
    cause: str = "",
) -> NoReturn:
    """Fail: texts are shown as they are, other values as :func:`shown` writes them."""
    __tracebackhide__ = True
    raise BrokenPromiseError(
        subject, expected=_text(expected), seen=_text(seen), details=details, cause=cause
    )


def holds(
    condition: object, subject: str, *, expected: object, seen: object, cause: str = ""
) -> None:
    """Fail unless a condition is true."""
    __tracebackhide__ = True
    if not condition:
        broken(subject, expected=expected, seen=seen, cause=cause)


def same(seen: object, expected: object, subject: str, *, cause: str = "") -> None:
    """Fail unless two values are equal; of two sequences, the difference is shown."""
    __tracebackhide__ = True
    if seen == expected:
        return
    details: list[str] = []
    if isinstance(seen, (list, tuple)) and isinstance(expected, (list, tuple)):
        details = [f"differ:   {difference(seen, expected)[0]}"]
    broken(subject, expected=shown(expected), seen=shown(seen), details=details, cause=cause)


def same_records(
    seen: Sequence[object], expected: Sequence[object], subject: str, *, cause: str = ""
) -> None:
    """Fail unless the same records or events came, in the same order.

    The kind of difference suggests the cause, unless the check knows it.
    """
    __tracebackhide__ = True
    if list(seen) == list(expected):
        return
    words, guess = difference(seen, expected)
    broken(
        subject,
        expected=shown(list(expected)),
        seen=shown(list(seen)),
        details=[f"differ:   {words}"],
        cause=cause or guess,
    )


def one_of(
    seen: Sequence[object], allowed: Sequence[Sequence[object]], subject: str, *, cause: str = ""
) -> None:
    """Fail unless the records are one of several sequences, each of which may come."""
    __tracebackhide__ = True
    if list(seen) not in [list(each) for each in allowed]:
        expected = f"one of {shown([list(each) for each in allowed])}"
        broken(subject, expected=expected, seen=shown(list(seen)), cause=cause)


class refuses(Generic[E]):
    """Fail unless the block raises an error of this type; ``value`` is the error.

    Args:
        error: The type, or several.
        call: The call in the block, in words, and why it has to be refused.
        match: A pattern that the message has to contain.
        cause: What usually causes a failure.
    """

    value: E

    def __init__(
        self, error: type[E] | tuple[type[E], ...], call: str, *, match: str = "", cause: str = ""
    ) -> None:
        self._errors = error if isinstance(error, tuple) else (error,)
        self._call = call
        self._match = match
        self._cause = cause

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> bool:
        __tracebackhide__ = True
        names = " or ".join(error.__name__ for error in self._errors)
        if exc is None:
            broken(self._call, expected=f"it raises {names}", seen="it returned", cause=self._cause)
        if isinstance(exc, self._errors):
            if self._match and re.search(self._match, str(exc)) is None:
                raise BrokenPromiseError(
                    self._call,
                    expected=f"it raises {names} with {self._match!r} in the message",
                    seen=shown(exc),
                    cause=self._cause,
                ) from exc
            self.value = exc
            return True
        if isinstance(exc, Exception) and not isinstance(exc, AssertionError):
            raise BrokenPromiseError(
                self._call, expected=f"it raises {names}", seen=shown(exc), cause=self._cause
            ) from exc
        return False


def _text(value: object) -> str:
    return value if isinstance(value, str) else shown(value)
