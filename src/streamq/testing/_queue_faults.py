"""Defines the faults that a :class:`FaultyQueue` can inject into a call.

Design: docs/design/testing.md.
"""

from __future__ import annotations

import abc
import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeAlias

from streamq.driver import BackendUnavailableError, Entry, StreamId

METHODS = (
    "append",
    "read",
    "describe",
    "delete",
    "streams",
    "commit",
    "newest_epoch",
    "sweep",
)
"""The methods that faults can be scripted for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a method, with the arguments that faults and tests need.

    Attributes:
        method: Its name, one of :data:`METHODS`.
        stream: The stream, if the call has one.
        entries: The records to append.
        ttl: Their time to live.
        after: The position after which to read.
        max_records: The largest number of records to read.
        max_wait: Seconds to wait for records.
    """

    method: str
    stream: StreamId | None = None
    entries: tuple[Entry, ...] = ()
    ttl: timedelta | None = None
    after: str = ""
    max_records: int = 0
    max_wait: float = 0.0


Forward: TypeAlias = Callable[[Call], Awaitable[Any]]
"""Makes the real call, with the arguments of the given :class:`Call`."""


class Fault(abc.ABC):
    """A fault that is injected into one call. Subclass it for a fault of your own."""

    @abc.abstractmethod
    async def apply(self, call: Call, forward: Forward) -> Any:
        """Inject the fault: return a result or raise, with or without the real call ``forward``."""


def injected_error(error: Exception | None, call: Call) -> Exception:
    if error is not None:
        return error.with_traceback(None)
    return BackendUnavailableError(
        f"injected into {call.method}", stream=None if call.stream is None else str(call.stream)
    )


@dataclass(frozen=True, slots=True)
class Pass(Fault):
    """No fault: the call is made."""

    async def apply(self, call: Call, forward: Forward) -> Any:
        return await forward(call)


@dataclass(frozen=True, slots=True)
class Fail(Fault):
    """The call fails before anything happens, by default as unavailable."""

    error: Exception | None = None

    async def apply(self, call: Call, forward: Forward) -> Any:
        raise injected_error(self.error, call)


@dataclass(frozen=True, slots=True)
class LoseAcknowledgement(Fault):
    """The call is made, and then reported as failed."""

    error: Exception | None = None

    async def apply(self, call: Call, forward: Forward) -> Any:
        await forward(call)
        raise injected_error(self.error, call)


@dataclass(frozen=True, slots=True)
class StorePrefix(Fault):
    """An append stores only its first records, and fails."""

    records: int
    error: Exception | None = None

    async def apply(self, call: Call, forward: Forward) -> Any:
        await forward(dataclasses.replace(call, entries=call.entries[: self.records]))
        raise injected_error(self.error, call)


@dataclass(frozen=True, slots=True)
class Twice(Fault):
    """The call is made twice, as by a client that repeats a request whose answer it has lost."""

    async def apply(self, call: Call, forward: Forward) -> Any:
        await forward(call)
        return await forward(call)


@dataclass(frozen=True, slots=True)
class Delay(Fault):
    """The call is delayed, by the clock of the loop.

    Attributes:
        seconds: The delay.
        then: The fault that follows; by default the call is made.
    """

    seconds: float
    then: Fault = field(default_factory=Pass)

    async def apply(self, call: Call, forward: Forward) -> Any:
        await asyncio.sleep(self.seconds)
        return await self.then.apply(call, forward)


@dataclass(frozen=True, slots=True)
class Empty(Fault):
    """A read returns nothing, at once."""

    async def apply(self, call: Call, forward: Forward) -> Any:
        return ()


class Block(Fault):
    """The call waits until it is released.

    Args:
        then: The fault that follows; by default the call is made.
    """

    def __init__(self, then: Fault | None = None) -> None:
        self._then = then or Pass()
        self._reached = asyncio.Event()
        self._released = asyncio.Event()

    async def reached(self) -> None:
        """Wait until a call is blocked here."""
        await self._reached.wait()

    def release(self) -> None:
        """Let the call continue, and every later one."""
        self._released.set()

    async def apply(self, call: Call, forward: Forward) -> Any:
        self._reached.set()
        await self._released.wait()
        return await self._then.apply(call, forward)
