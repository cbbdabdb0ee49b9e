"""What the kit cannot know about a backend: how to reach it, look into it, and do it harm."""

from __future__ import annotations

import abc
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import ClassVar, NoReturn, Self, TypeAlias

from streamq.driver import (
    AnyDriver,
    ChunkQueue,
    Driver,
    DriverSettings,
    QueueOptions,
    SettingsT,
    StreamId,
)

OpenQueue: TypeAlias = Callable[..., Awaitable[ChunkQueue]]
"""Opens one more connection to the backend under test; takes an optional ``ttl: timedelta``."""

LONG_TTL = timedelta(minutes=5)

MANDATORY_HOOKS: Mapping[str, tuple[str, ...]] = {
    "durable": ("restart",),
    "cross_host": ("break_connections", "hang", "unreachable"),
}
"""Hooks that a harness has to supply once the backend declares a capability: its checks fail then,
instead of being skipped."""


class BackendHarness(abc.ABC):
    """One backend as the kit sees it: settings that lead there, and hooks that do things to it.

    Only :attr:`driver` and :meth:`settings` are required. Every hook may be left out: its checks
    are then skipped and say so, or fail where :data:`MANDATORY_HOOKS` demands it. A hook acts on
    the backend past the driver under test, never through it, and returns when what it does has
    taken effect. Where a hook cannot work on the machine at hand, it calls ``pytest.skip`` with the
    reason.

    Each check gets a harness of its own. To share a server between checks, start it in a pytest
    fixture of a larger scope and hand it to the harness; every check uses streams that no other
    check knows.

    Args:
        directory: An empty directory that belongs to this check.
    """

    driver: ClassVar[AnyDriver]
    """The driver under test."""

    patience_seconds: ClassVar[float] = 15.0
    """How long to wait for something that has to happen before a check fails."""

    short_ttl: ClassVar[timedelta] = timedelta(seconds=0.6)
    """A time to live for checks that wait for a stream to expire. The shorter, the quicker."""

    answer_seconds: ClassVar[float] = 10.0
    """Within this time, and the wait that it asked for, a call that is not answered has failed."""

    listing_page: ClassVar[int] = 1_000
    """The most streams that the backend lists at once. Where creating a tenth more than these takes
    long, let the driver ask for smaller pages, and say here how small."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def label(self) -> str:
        """What to call the backend in reports, such as ``redis (Valkey 9)``."""
        return self.driver.name

    @abc.abstractmethod
    def settings(self) -> DriverSettings:
        """Return how every connection reaches the one backend that they share."""

    async def start(self) -> None:  # noqa: B027 - optional
        """Start what the check needs; called once, in the check's event loop."""

    async def stop(self) -> None:  # noqa: B027 - optional
        """Stop what :meth:`start` and the hooks started; all queues are closed by then."""

    # -- looking past the driver ---------------------------------------------------------------

    async def peek(self, stream: StreamId) -> list[bytes]:
        """Return the records that the backend holds for a stream, oldest first.

        Of a stream that does not exist these are none: an empty list, whatever the backend says.

        Proves that the driver stores what it was given, byte by byte and nothing else.
        """
        _not_supplied(self.peek)

    async def trim(self, stream: StreamId, keep: int) -> None:
        """Remove the oldest records of a stream, as an operator or a retention rule does.

        Proves that readers are told what is missing, and never skip it in silence.

        Args:
            stream: It exists.
            keep: How many of the newest records stay, at least 1.
        """
        _not_supplied(self.trim)

    # -- faults on the way ---------------------------------------------------------------------

    async def break_connections(self) -> None:
        """Cut every connection that clients have now; new ones work.

        Proves that a dropped connection costs an error that is retried, and nothing else.
        """
        _not_supplied(self.break_connections)

    def slow(self, seconds: float) -> AbstractAsyncContextManager[None]:
        """Inside, the backend takes about this much longer to answer.

        Proves that slowness is neither an error nor a cause of disorder.
        """
        _not_supplied(self.slow)

    # -- faults of the server ------------------------------------------------------------------

    async def restart(self) -> None:
        """End the backend without any warning, and start it again on the data it left.

        :meth:`settings` leads to it afterwards. Without a server, whatever a machine that loses
        every process leaves behind.

        Proves ``durable``: what was acknowledged is still there.
        """
        _not_supplied(self.restart)

    def hang(self) -> AbstractAsyncContextManager[None]:
        """Inside, the backend accepts connections at most, and answers nothing.

        That is: no append, read, description, listing or new connection. A lock that only stops
        writers is no such thing, and better a check of your own.

        Proves that no call waits for longer than :attr:`answer_seconds`.
        """
        _not_supplied(self.hang)

    def full(self) -> AbstractAsyncContextManager[DriverSettings]:
        """Inside, there is no room for one more MiB; gives the settings to see that with.

        These settings lead to the streams that :meth:`settings` leads to, or to a copy of them,
        and what is there can be read.

        Proves that it is told as ``StorageFullError``, and that it passes.
        """
        _not_supplied(self.full)

    # -- refusals ------------------------------------------------------------------------------

    def read_only(self) -> AbstractAsyncContextManager[DriverSettings]:
        """Inside, the settings that this gives lead to a backend where nothing can be written.

        Proves that it is told as ``AccessDeniedError`` or ``BackendUnavailableError``.
        """
        _not_supplied(self.read_only)

    def wrong_credentials(self) -> tuple[DriverSettings, str]:
        """Return settings that the backend refuses, and the secret in them.

        Proves ``AccessDeniedError``, and that no message contains the secret.
        """
        _not_supplied(self.wrong_credentials)

    def unreachable(self) -> DriverSettings:
        """Return settings that lead to where nothing listens.

        Proves ``BackendUnavailableError``, at open, within :attr:`answer_seconds`.
        """
        _not_supplied(self.unreachable)

    # -- what the kit asks ---------------------------------------------------------------------

    def supplies(self, hook: str) -> bool:
        """Whether the harness has a hook of this name."""
        return getattr(type(self), hook) is not getattr(BackendHarness, hook)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()


HOOKS = (
    *("peek", "trim", "break_connections", "slow", "restart", "hang", "full", "read_only"),
    *("wrong_credentials", "unreachable"),
)
"""The optional parts of a harness."""


def _not_supplied(hook: Callable[..., object]) -> NoReturn:
    raise NotImplementedError(f"this harness does not supply {hook.__name__}()")


@asynccontextmanager
async def queue_factory(
    driver: type[Driver[SettingsT]], settings: SettingsT, *, ttl: timedelta = LONG_TTL
) -> AsyncIterator[OpenQueue]:
    """Open queues on demand and close all of them at the end.

    Args:
        driver: The driver under test.
        settings: How every connection reaches the one backend that they share.
        ttl: Time to live for queues that are opened without one.
    """
    opened: list[ChunkQueue] = []

    async def open_queue(ttl: timedelta = ttl) -> ChunkQueue:
        queue = await driver.open(QueueOptions(ttl=ttl), settings)
        opened.append(queue)
        return queue

    try:
        yield open_queue
    finally:
        for queue in opened:
            await queue.aclose()
