"""Defines the harness with which the kit reaches, inspects and breaks a backend."""

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
    close_all,
)

OpenQueue: TypeAlias = Callable[..., Awaitable[ChunkQueue]]
"""Opens one more connection to the backend under test; takes an optional ``ttl: timedelta``."""

OpenWith: TypeAlias = Callable[..., Awaitable[ChunkQueue]]
"""Opens a queue with settings of its own; takes an optional ``ttl: timedelta``."""

LONG_TTL = timedelta(minutes=5)

MANDATORY_HOOKS: Mapping[str, tuple[str, ...]] = {
    "durable": ("restart",),
    "cross_host": ("break_connections", "hang", "unreachable"),
}
"""Hooks that a harness has to supply if the backend declares a capability. Without them the checks
fail instead of being skipped."""


class BackendHarness(abc.ABC):
    """Connects the kit to one backend: settings to reach it, and hooks that inspect or break it.

    Only :attr:`driver` and :meth:`settings` are required. Every hook is optional: without it, its
    checks are skipped with that reason, or fail where :data:`MANDATORY_HOOKS` demands it. A hook
    acts on the backend directly, never through the driver under test, and returns when its effect
    is visible. A hook that cannot work on the current machine calls ``pytest.skip`` with the
    reason.

    Each check gets a harness of its own. To share a server between checks, start it in a pytest
    fixture of a larger scope and pass it to the harness; every check uses streams that no other
    check uses.

    Args:
        directory: An empty directory that belongs to this check.
    """

    driver: ClassVar[AnyDriver]
    """The driver under test."""

    patience_seconds: ClassVar[float] = 15.0
    """Seconds to wait for an expected event before a check fails."""

    check_seconds: ClassVar[float] = 110.0
    """Seconds after which a check fails, with the call that hangs and where it does. In virtual
    time a hundred times as many."""

    short_ttl: ClassVar[timedelta] = timedelta(seconds=0.6)
    """Time to live in checks that wait for a stream to expire. Shorter is quicker."""

    answer_seconds: ClassVar[float] = 10.0
    """Seconds within which a call without an answer has to fail, after the wait it requested."""

    listing_page: ClassVar[int] = 1_000
    """Number of streams on one page of the backend's listing. The check creates a tenth more. If
    that takes long, let the driver request smaller pages, and state their size here."""

    read_page: ClassVar[int] = 1_000
    """Number of records that one request of a read, or of a description, returns at most. Checks
    store two and a half times as many, in appends of up to 500. If that takes long, let the driver
    request smaller pages, and state their size here."""

    read_page_bytes: ClassVar[int] = 2**20
    """Bytes of data that one request of a read returns at most. Checks store two and a half times
    as many, in records of a tenth of them, or of ``max_record_bytes``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def label(self) -> str:
        """Name of the backend in reports, such as ``redis (Valkey 9)``."""
        return self.driver.name

    @abc.abstractmethod
    def settings(self) -> DriverSettings:
        """Return settings with which every connection reaches the same backend."""

    async def start(self) -> None:  # noqa: B027 - optional
        """Start the resources that the check needs; called once, in the check's event loop."""

    async def stop(self) -> None:  # noqa: B027 - optional
        """Stop the resources that :meth:`start` and the hooks started, after closing all queues."""

    # -- inspection without the driver ---------------------------------------------------------

    async def peek(self, stream: StreamId) -> list[bytes]:
        """Return the records that the backend holds for a stream, oldest first.

        For a stream that does not exist, the list is empty, whatever the backend reports.

        Proves that the driver stores exactly the bytes of the records that were appended.
        """
        _not_supplied(self.peek)

    async def trim(self, stream: StreamId, keep: int) -> None:
        """Remove the oldest records of a stream, as an operator or a retention rule does.

        Proves that missing records are reported to readers, and never skipped silently.

        Args:
            stream: An existing stream.
            keep: Number of the newest records that stay, at least 1.
        """
        _not_supplied(self.trim)

    async def plant(self, tenant: str) -> None:
        """Store entries that streamq did not store where it looks for streams of a tenant.

        Above all names that no stream can have, and everything else that the backend takes; one
        that sorts before ``m`` and one that sorts after it, and, if there is such a thing, an entry
        that has expired, and news of one for readers that wait.

        Proves that one foreign entry hides no stream from listings, sweeps and blocked readers.

        Args:
            tenant: A tenant that no other check uses.
        """
        _not_supplied(self.plant)

    # -- network faults ------------------------------------------------------------------------

    async def break_connections(self) -> None:
        """Cut every open connection of clients; new ones work.

        Proves that a dropped connection causes an error that is retried, and no loss.
        """
        _not_supplied(self.break_connections)

    def slow(self, seconds: float) -> AbstractAsyncContextManager[None]:
        """Delay every answer of the backend by about this much, inside the context.

        Proves that slowness causes no error and does not change the order of records.
        """
        _not_supplied(self.slow)

    # -- faults of the server ------------------------------------------------------------------

    async def restart(self) -> None:
        """Kill the backend without warning, and start it again on the same data.

        :meth:`settings` reaches it afterwards. A backend without a server keeps what survives the
        end of all processes of a machine.

        Proves ``durable``: acknowledged records are still there.
        """
        _not_supplied(self.restart)

    def hang(self) -> AbstractAsyncContextManager[None]:
        """Make the backend answer nothing, inside the context; it may still accept connections.

        No append, read, description, listing or new connection succeeds. A lock that stops only
        writers is not enough; write a check of your own for it.

        Proves that no call waits for longer than :attr:`answer_seconds`.
        """
        _not_supplied(self.hang)

    def full(self) -> AbstractAsyncContextManager[DriverSettings]:
        """Leave no room for one more MiB, inside the context; gives settings that are affected.

        These settings reach the streams that :meth:`settings` reaches, or a copy of them, and these
        can be read. The limit itself will do where the server has a switch for it, such as an alarm
        that it raises at its quota.

        Proves that a full backend is reported as ``StorageFullError``, and that writing works again
        afterwards.
        """
        _not_supplied(self.full)

    # -- refusals ------------------------------------------------------------------------------

    def read_only(self) -> AbstractAsyncContextManager[DriverSettings]:
        """Give settings that reach a backend that cannot be written to, inside the context.

        Proves that this is reported as ``AccessDeniedError`` or ``BackendUnavailableError``.
        """
        _not_supplied(self.read_only)

    def wrong_credentials(self) -> tuple[DriverSettings, str]:
        """Return settings that the backend refuses, and the secret in them.

        A call and no context: the server demands a login before and after it. If the one of the
        other checks does not, start a second one in a fixture, which serves :meth:`read_only`, too.

        Proves that this is reported as ``AccessDeniedError``, and that no message has the secret.
        """
        _not_supplied(self.wrong_credentials)

    def unreachable(self) -> DriverSettings:
        """Return settings with an address at which no server listens.

        Proves that opening raises ``BackendUnavailableError`` within :attr:`answer_seconds`.
        """
        _not_supplied(self.unreachable)

    # -- for the kit ---------------------------------------------------------------------------

    def supplies(self, hook: str) -> bool:
        """Whether the harness has a hook of this name."""
        return getattr(type(self), hook) is not getattr(BackendHarness, hook)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()


HOOKS = (
    *("peek", "trim", "plant"),
    *("break_connections", "slow", "restart", "hang", "full", "read_only"),
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
        settings: Settings with which every connection reaches the same backend.
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
        await close_all(*(queue.aclose for queue in opened))
