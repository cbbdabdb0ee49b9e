"""Types a streaming activity: its arguments without the writers, its result, its chunks.

Design: docs/design/temporal-producing.md.
"""

from __future__ import annotations

from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    Protocol,
    Self,
    overload,
)

from typing_extensions import TypeVar

from streamq.writing._blocking import BlockingStreamWriter
from streamq.writing._writer import StreamWriter

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
R = TypeVar("R")
T = TypeVar("T")
P = ParamSpec("P")
Rest = ParamSpec("Rest")
Owner = TypeVar("Owner")
AIn = TypeVar("AIn", contravariant=True)
BIn = TypeVar("BIn", contravariant=True)
CIn = TypeVar("CIn", contravariant=True)
TIn = TypeVar("TIn", contravariant=True)
ROut = TypeVar("ROut", covariant=True)


class TakesChunks(Protocol[TIn]):
    """A writer of either kind, or a double: what a direct call may pass as ``stream=``.

    A function states its kind only by the writer's class, and a generator often has none.
    """

    def send_chunk(self, value: TIn, /) -> object:
        """Take one chunk."""


if TYPE_CHECKING:

    class Writer(StreamWriter[T], BlockingStreamWriter[T]):  # type: ignore[misc]
        """Accepted by type checkers as either kind of writer."""

    class Open:
        """Accepted only by a parameter that takes any object, and hence a writer, too."""

    class StreamingActivity(Generic[P, ROut, T]):
        """A decorated function, for type checkers; at run time it is a function.

        ``P`` are its arguments without the writers, ``ROut`` what it returns, and ``T`` the type
        of the main stream's chunks. A unit test that calls the function itself passes ``stream=``
        as well, and every further writer: that call's other arguments are not checked, since a
        ``ParamSpec`` takes no further parameter by name.
        """

        __name__: str
        __qualname__: str
        __module__: str

        @overload
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> ROut: ...
        @overload
        def __call__(self, *args: Any, stream: TakesChunks[T] | None, **others: Any) -> ROut: ...
        def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
        @overload
        def __get__(self, instance: None, owner: type, /) -> Self: ...
        @overload
        def __get__(
            self: StreamingActivity[Concatenate[Owner, Rest], ROut, T],
            instance: Owner,
            owner: type | None = None,
            /,
        ) -> StreamingActivity[Rest, ROut, T]: ...
        def __get__(self, instance: object, owner: type | None = None, /) -> Any: ...


class Keyword0(Protocol[T, ROut]):
    """A function whose parameter ``stream`` is keyword only."""

    def __call__(self, *, stream: Writer[T]) -> ROut: ...


class Keyword1(Protocol[AIn, T, ROut]):
    """A function whose parameter ``stream`` is keyword only."""

    def __call__(self, a: AIn, /, *, stream: Writer[T]) -> ROut: ...


class Keyword2(Protocol[AIn, BIn, T, ROut]):
    """A function whose parameter ``stream`` is keyword only."""

    def __call__(self, a: AIn, b: BIn, /, *, stream: Writer[T]) -> ROut: ...


class Keyword3(Protocol[AIn, BIn, CIn, T, ROut]):
    """A function whose parameter ``stream`` is keyword only."""

    def __call__(self, a: AIn, b: BIn, c: CIn, /, *, stream: Writer[T]) -> ROut: ...
