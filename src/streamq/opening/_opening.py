"""Lets an object that is opened be awaited, or entered with ``async with``.

Design: docs/design/structure.md.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import Generic, Protocol, TypeVar, cast

from streamq.driver import close_all


class _Closable(Protocol):
    async def aclose(self) -> None: ...


C = TypeVar("C", bound=_Closable)


class Opening(Generic[C]):
    """An opening in progress: ``await`` it to own the object, or enter it to have it closed.

    Args:
        opener: Opens the object.
        close: Closes it, in place of its own ``__aexit__`` or ``aclose``.
    """

    def __init__(
        self,
        opener: Callable[[], Awaitable[C]],
        *,
        close: Callable[[C], Awaitable[None]] | None = None,
    ) -> None:
        self._opener = opener
        self._close = close
        self._entered: AbstractAsyncContextManager[C] | C | None = None

    def __await__(self) -> Generator[object, None, C]:
        return self._opener().__await__()

    async def __aenter__(self) -> C:
        opened = await self._opener()
        self._entered = opened
        if isinstance(opened, AbstractAsyncContextManager):
            await opened.__aenter__()
        return opened

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        entered = self._entered
        close = self._close
        if close is not None and entered is not None:
            await close_all(partial(close, cast(C, entered)))
        elif isinstance(entered, AbstractAsyncContextManager):
            await entered.__aexit__(kind, exc, tb)
        elif entered is not None:
            await entered.aclose()
