"""Calls what a driver offers before there is a queue: open, examine, provision.

Design: docs/design/contract.md.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from streamq._errors import DriverError
from streamq.driver import AnyDriver, ChunkQueue, DriverSettings, Finding, QueueOptions

from ._breach import breach, is_permitted, shown, unexpected
from ._calls import close
from ._queues import check_queue

T = TypeVar("T")

_OPENING_SECONDS = 120.0


async def open_driver(
    driver: AnyDriver, options: QueueOptions, settings: DriverSettings
) -> ChunkQueue:
    """Open a queue; it is one that can be used.

    Raises:
        DriverError: The driver broke the contract.
        StreamqError: What the driver raised.
    """
    opened = await _called(driver, "open", lambda: driver.open(options, settings))
    queue: ChunkQueue = opened  # type: ignore[assignment]  # checked below
    try:
        check_queue(queue, driver=driver.name)
    except DriverError:
        if isinstance(queue, ChunkQueue):
            with contextlib.suppress(Exception):  # the first error says more
                await close(queue)
        raise
    return queue


async def examine(
    driver: AnyDriver, options: QueueOptions, settings: DriverSettings
) -> list[Finding]:
    """Call :meth:`Driver.examine`.

    Raises:
        DriverError: The driver broke the contract.
        StreamqError: What the driver raised.
    """
    return await _items(driver, "examine", Finding, lambda: driver.examine(options, settings))


async def provision(
    driver: AnyDriver, options: QueueOptions, settings: DriverSettings
) -> list[str]:
    """Call :meth:`Driver.provision`.

    Raises:
        DriverError: The driver broke the contract.
        StreamqError: What the driver raised.
    """
    return await _items(driver, "provision", str, lambda: driver.provision(options, settings))


async def _items(
    driver: AnyDriver, method: str, kind: type[T], make: Callable[[], Awaitable[Sequence[T]]]
) -> list[T]:
    found = await _called(driver, method, make)
    if (
        not isinstance(found, Sequence)
        or isinstance(found, str)
        or not all(isinstance(each, kind) for each in found)
    ):
        raise breach(
            f"{method}() returned {shown(found)}, not a sequence of {kind.__name__}",
            f"Driver.{method}",
            backend=driver.name,
        )
    return list(found)


async def _called(driver: AnyDriver, method: str, make: Callable[[], Awaitable[object]]) -> object:
    """Make a call that has to end within two minutes, however slow the server is."""
    try:
        async with asyncio.timeout(_OPENING_SECONDS) as patience:
            try:
                return await make()
            except BaseException as exc:
                if is_permitted(exc):
                    raise
                raise unexpected(exc, f"Driver.{method}", backend=driver.name, of=driver) from exc
    except TimeoutError:
        if not patience.expired():
            raise
        raise breach(
            f"{method}() has not ended for {_OPENING_SECONDS:g} s",
            f"Driver.{method}",
            backend=driver.name,
        ) from None
