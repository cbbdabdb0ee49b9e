"""Types the decorator of streaming activities, for type checkers alone.

The overloads cover writers in the first three places, also several of them, a writer in the fourth
one, the parameter ``stream`` as keyword only, and generators. Each names what the first places
take: any one argument (``A``), a writer, or any object (``Open``). A place for any argument takes a
writer as well, and one for any object takes both, so that the more special overloads come first. A
writer elsewhere leaves the arguments unchecked; a further one that is keyword only is not removed.

Design: docs/design/temporal-producing.md.
"""

# mypy: disable-error-code="overload-overlap, overload-cannot-match"

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any, Concatenate, Protocol, cast, overload

from streamq.writing._policies import OnFull, OnRetry

from ._activity_types import (
    A,
    B,
    C,
    Keyword0,
    Keyword1,
    Keyword2,
    Keyword3,
    P,
    R,
    T,
)

if TYPE_CHECKING:
    from ._activity_types import Open, StreamingActivity, Writer


class Decorator(Protocol):
    """Turns functions that stream into activities."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[Open, Open, P], AsyncIterable[T]], /
    ) -> StreamingActivity[Concatenate[Any, Any, P], Awaitable[None], T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, Open, Open, P], AsyncIterable[T]], /
    ) -> StreamingActivity[Concatenate[A, Any, Any, P], Awaitable[None], T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Open, Writer[Any], P], AsyncIterable[T]], /
    ) -> StreamingActivity[Concatenate[Any, P], Awaitable[None], T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Writer[Any], Open, P], AsyncIterable[T]], /
    ) -> StreamingActivity[Concatenate[Any, P], Awaitable[None], T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, Open, Writer[Any], P], AsyncIterable[T]], /
    ) -> StreamingActivity[Concatenate[A, Any, P], Awaitable[None], T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, Writer[Any], Open, P], AsyncIterable[T]], /
    ) -> StreamingActivity[Concatenate[A, Any, P], Awaitable[None], T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Open, P], AsyncIterable[T]], /
    ) -> StreamingActivity[Concatenate[Any, P], Awaitable[None], T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, Open, P], AsyncIterable[T]], /
    ) -> StreamingActivity[Concatenate[A, Any, P], Awaitable[None], T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Writer[Any], Writer[Any], P], AsyncIterable[T]], /
    ) -> StreamingActivity[P, Awaitable[None], T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, B, Open, P], AsyncIterable[T]], /
    ) -> StreamingActivity[Concatenate[A, B, Any, P], Awaitable[None], T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, Writer[Any], Writer[Any], P], AsyncIterable[T]], /
    ) -> StreamingActivity[Concatenate[A, P], Awaitable[None], T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Writer[Any], P], AsyncIterable[T]], /
    ) -> StreamingActivity[P, Awaitable[None], T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, Writer[Any], P], AsyncIterable[T]], /
    ) -> StreamingActivity[Concatenate[A, P], Awaitable[None], T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, B, Writer[Any], P], AsyncIterable[T]], /
    ) -> StreamingActivity[Concatenate[A, B, P], Awaitable[None], T]: ...
    @overload
    def __call__(
        self, function: Callable[P, AsyncIterable[T]], /
    ) -> StreamingActivity[P, Awaitable[None], T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Open, Open, P], Generator[T, Any, R]], /
    ) -> StreamingActivity[Concatenate[Any, Any, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, Open, Open, P], Generator[T, Any, R]], /
    ) -> StreamingActivity[Concatenate[A, Any, Any, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Open, Writer[Any], P], Generator[T, Any, R]], /
    ) -> StreamingActivity[Concatenate[Any, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Writer[Any], Open, P], Generator[T, Any, R]], /
    ) -> StreamingActivity[Concatenate[Any, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, Open, Writer[Any], P], Generator[T, Any, R]], /
    ) -> StreamingActivity[Concatenate[A, Any, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, Writer[Any], Open, P], Generator[T, Any, R]], /
    ) -> StreamingActivity[Concatenate[A, Any, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Open, P], Generator[T, Any, R]], /
    ) -> StreamingActivity[Concatenate[Any, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, Open, P], Generator[T, Any, R]], /
    ) -> StreamingActivity[Concatenate[A, Any, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Writer[Any], Writer[Any], P], Generator[T, Any, R]], /
    ) -> StreamingActivity[P, R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, B, Open, P], Generator[T, Any, R]], /
    ) -> StreamingActivity[Concatenate[A, B, Any, P], R, T]: ...
    @overload
    def __call__(
        self,
        function: Callable[Concatenate[A, Writer[Any], Writer[Any], P], Generator[T, Any, R]],
        /,
    ) -> StreamingActivity[Concatenate[A, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Writer[Any], P], Generator[T, Any, R]], /
    ) -> StreamingActivity[P, R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, Writer[Any], P], Generator[T, Any, R]], /
    ) -> StreamingActivity[Concatenate[A, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, B, Writer[Any], P], Generator[T, Any, R]], /
    ) -> StreamingActivity[Concatenate[A, B, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[P, Generator[T, Any, R]], /
    ) -> StreamingActivity[P, R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Open, Open, P], Iterator[T]], /
    ) -> StreamingActivity[Concatenate[Any, Any, P], None, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, Open, Open, P], Iterator[T]], /
    ) -> StreamingActivity[Concatenate[A, Any, Any, P], None, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Open, Writer[Any], P], Iterator[T]], /
    ) -> StreamingActivity[Concatenate[Any, P], None, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Writer[Any], Open, P], Iterator[T]], /
    ) -> StreamingActivity[Concatenate[Any, P], None, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, Open, Writer[Any], P], Iterator[T]], /
    ) -> StreamingActivity[Concatenate[A, Any, P], None, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, Writer[Any], Open, P], Iterator[T]], /
    ) -> StreamingActivity[Concatenate[A, Any, P], None, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Open, P], Iterator[T]], /
    ) -> StreamingActivity[Concatenate[Any, P], None, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, Open, P], Iterator[T]], /
    ) -> StreamingActivity[Concatenate[A, Any, P], None, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Writer[Any], Writer[Any], P], Iterator[T]], /
    ) -> StreamingActivity[P, None, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, B, Open, P], Iterator[T]], /
    ) -> StreamingActivity[Concatenate[A, B, Any, P], None, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, Writer[Any], Writer[Any], P], Iterator[T]], /
    ) -> StreamingActivity[Concatenate[A, P], None, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Writer[Any], P], Iterator[T]], /
    ) -> StreamingActivity[P, None, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, Writer[Any], P], Iterator[T]], /
    ) -> StreamingActivity[Concatenate[A, P], None, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, B, Writer[Any], P], Iterator[T]], /
    ) -> StreamingActivity[Concatenate[A, B, P], None, T]: ...
    @overload
    def __call__(self, function: Callable[P, Iterator[T]], /) -> StreamingActivity[P, None, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Open, Open, Open, Writer[T], P], R], /
    ) -> StreamingActivity[Concatenate[Any, Any, Any, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Open, Open, Writer[T], Writer[Any], P], R], /
    ) -> StreamingActivity[Concatenate[Any, Any, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Open, Open, Writer[T], P], R], /
    ) -> StreamingActivity[Concatenate[Any, Any, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Open, Writer[T], Open, P], R], /
    ) -> StreamingActivity[Concatenate[Any, Any, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Writer[T], Open, Open, P], R], /
    ) -> StreamingActivity[Concatenate[Any, Any, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, Open, Open, Writer[T], P], R], /
    ) -> StreamingActivity[Concatenate[A, Any, Any, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Open, A, Open, Writer[T], P], R], /
    ) -> StreamingActivity[Concatenate[Any, A, Any, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Open, Open, A, Writer[T], P], R], /
    ) -> StreamingActivity[Concatenate[Any, Any, A, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Open, Writer[T], Writer[Any], P], R], /
    ) -> StreamingActivity[Concatenate[Any, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Writer[T], Open, Writer[Any], P], R], /
    ) -> StreamingActivity[Concatenate[Any, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Writer[T], Writer[Any], Open, P], R], /
    ) -> StreamingActivity[Concatenate[Any, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, Open, Writer[T], Writer[Any], P], R], /
    ) -> StreamingActivity[Concatenate[A, Any, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Open, A, Writer[T], Writer[Any], P], R], /
    ) -> StreamingActivity[Concatenate[Any, A, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Open, Writer[T], P], R], /
    ) -> StreamingActivity[Concatenate[Any, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Writer[T], Open, P], R], /
    ) -> StreamingActivity[Concatenate[Any, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, Open, Writer[T], P], R], /
    ) -> StreamingActivity[Concatenate[A, Any, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, Writer[T], Open, P], R], /
    ) -> StreamingActivity[Concatenate[A, Any, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Open, A, Writer[T], P], R], /
    ) -> StreamingActivity[Concatenate[Any, A, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Writer[T], A, Open, P], R], /
    ) -> StreamingActivity[Concatenate[A, Any, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Writer[T], Writer[Any], Writer[Any], P], R], /
    ) -> StreamingActivity[P, R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, B, Open, Writer[T], P], R], /
    ) -> StreamingActivity[Concatenate[A, B, Any, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, B, Writer[T], Open, P], R], /
    ) -> StreamingActivity[Concatenate[A, B, Any, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, Open, B, Writer[T], P], R], /
    ) -> StreamingActivity[Concatenate[A, Any, B, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, Writer[T], Writer[Any], Writer[Any], P], R], /
    ) -> StreamingActivity[Concatenate[A, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Open, A, B, Writer[T], P], R], /
    ) -> StreamingActivity[Concatenate[Any, A, B, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Writer[T], Writer[Any], P], R], /
    ) -> StreamingActivity[P, R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, Writer[T], Writer[Any], P], R], /
    ) -> StreamingActivity[Concatenate[A, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Writer[T], A, Writer[Any], P], R], /
    ) -> StreamingActivity[Concatenate[A, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, B, Writer[T], Writer[Any], P], R], /
    ) -> StreamingActivity[Concatenate[A, B, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[Writer[T], P], R], /
    ) -> StreamingActivity[P, R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, Writer[T], P], R], /
    ) -> StreamingActivity[Concatenate[A, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, B, Writer[T], P], R], /
    ) -> StreamingActivity[Concatenate[A, B, P], R, T]: ...
    @overload
    def __call__(
        self, function: Callable[Concatenate[A, B, C, Writer[T], P], R], /
    ) -> StreamingActivity[Concatenate[A, B, C, P], R, T]: ...
    @overload
    def __call__(self, function: Keyword0[T, R], /) -> StreamingActivity[[], R, T]: ...
    @overload
    def __call__(self, function: Keyword1[A, T, R], /) -> StreamingActivity[[A], R, T]: ...
    @overload
    def __call__(self, function: Keyword2[A, B, T, R], /) -> StreamingActivity[[A, B], R, T]: ...
    @overload
    def __call__(
        self, function: Keyword3[A, B, C, T, R], /
    ) -> StreamingActivity[[A, B, C], R, T]: ...
    @overload
    def __call__(self, function: Callable[..., R], /) -> Callable[..., R]: ...
    @overload
    def __call__(
        self,
        *,
        name: str | None = ...,
        topic: str | None = ...,
        on_retry: OnRetry = ...,
        on_full: OnFull = ...,
    ) -> Decorator: ...


def typed(function: Callable[..., Any]) -> Decorator:
    """Return the decorator as it is, with its type."""
    return cast(Decorator, function)
