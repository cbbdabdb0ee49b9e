"""Drivers that break the contract when a queue is opened or closed."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from streamq import DriverError, Settings, open_queue, open_reader, open_writer
from streamq.driver import ChunkQueue
from streamq.opening import _open

from .broken_driver import AcmeDriver, AcmeQueue, Defect, raising, read, status, write

QUEUES: list[tuple[str, Callable[[ChunkQueue], Any], str]] = [
    ("None", lambda _: None, r"Driver\.open\(\) returned None is not a ChunkQueue"),
    ("an object", lambda _: object(), "is not a ChunkQueue"),
    ("no name", lambda inner: changed(inner, backend=None), "backend is None, not the name"),
    ("no home", lambda inner: changed(inner, home=None), "__new__ does not call that of"),
    ("hidden", lambda inner: changed(inner, hidden_seconds=-1), "hidden_seconds is -1"),
    ("capabilities", lambda inner: changed(inner, capabilities={}), "capabilities is {}, not Cap"),
    ("a flag", lambda inner: promising(inner, replay=1), "capabilities.replay is 1, not a bool"),
    ("a size", lambda inner: promising(inner, max_record_bytes=None), "max_record_bytes is None"),
    ("a class", lambda inner: promising(inner, latency="fast"), "latency is 'fast', not a Lat"),
]


def changed(inner: ChunkQueue, **attributes: object) -> AcmeQueue:
    """A queue with other attributes."""
    queue = AcmeQueue(inner)
    vars(queue).update(attributes)
    return queue


def promising(inner: ChunkQueue, **capabilities: object) -> AcmeQueue:
    """A queue with other capabilities."""
    found = dataclasses.replace(inner.capabilities, **capabilities)  # type: ignore[arg-type]
    return changed(inner, capabilities=found)


@pytest.fixture
def acme(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> type[AcmeDriver]:
    """The driver, as the one that is configured."""

    class Chosen(AcmeDriver):
        pass

    monkeypatch.setattr(_open, "load_driver", lambda _: Chosen)
    return Chosen


@pytest.mark.parametrize(("make", "message"), [q[1:] for q in QUEUES], ids=[q[0] for q in QUEUES])
async def test_a_queue_that_lacks_something_is_refused_when_it_is_opened(
    settings: Settings,
    acme: type[AcmeDriver],
    make: Callable[[ChunkQueue], Any],
    message: str,
) -> None:
    """What is missing would be an AttributeError somewhere else, later."""

    async def opener(inner: ChunkQueue) -> Any:
        return make(inner)

    acme.opener = opener
    with pytest.raises(DriverError, match=message):
        await open_queue(settings)
    with pytest.raises(DriverError, match=message):
        await open_reader("s", settings=settings)


@pytest.mark.parametrize(
    "error", [KeyError("k"), OSError("o"), TimeoutError("t"), asyncio.CancelledError()]
)
async def test_a_driver_that_fails_to_open_is_named(
    settings: Settings, acme: type[AcmeDriver], error: BaseException
) -> None:
    """Opening is the first call of every program."""
    acme.opener = raising(error)
    with pytest.raises(DriverError, match=rf"'acme'.* open\(\) raised {type(error).__name__}"):
        await open_writer("s", settings=settings)


async def test_a_given_queue_is_examined_too(queue: ChunkQueue, settings: Settings) -> None:
    """Applications open queues themselves, and pass them on."""
    broken = promising(queue, fenced=None)
    for use in (read, write, status):
        with pytest.raises(DriverError, match=r"capabilities\.fenced is None, not a bool"):
            await use(broken, settings)


async def test_capabilities_that_change_are_refused(queue: ChunkQueue, settings: Settings) -> None:
    """A writer that relied on a fence would go on without one."""
    broken = AcmeQueue(queue)
    await write(broken, settings)
    broken.capabilities = dataclasses.replace(broken.capabilities, fenced=False)
    with pytest.raises(DriverError, match="promises fenced=False after fenced=True"):
        await read(broken, settings)


@pytest.mark.parametrize("defect", [raising(KeyError("k")), raising(asyncio.CancelledError())])
async def test_a_queue_that_cannot_be_closed_is_named(
    settings: Settings, acme: type[AcmeDriver], defect: Defect
) -> None:
    """By who opened it, however it was opened."""

    async def opener(inner: ChunkQueue) -> ChunkQueue:
        return AcmeQueue(inner, aclose=defect)

    acme.opener = opener
    with pytest.raises(DriverError, match=r"aclose\(\) raised (KeyError|CancelledError)"):
        async with open_queue(settings):
            pass
    with pytest.raises(DriverError, match=r"aclose\(\) raised (KeyError|CancelledError)"):
        async with open_reader("s", settings=settings):
            pass


async def test_a_queue_that_never_closes_is_left_behind(
    settings: Settings, acme: type[AcmeDriver], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that has ended must not wait for a driver for ever."""
    monkeypatch.setattr("streamq.calling._calls._CLOSING_SECONDS", 0.1)

    async def hanging(_: ChunkQueue) -> None:
        await asyncio.Event().wait()

    async def opener(inner: ChunkQueue) -> ChunkQueue:
        return AcmeQueue(inner, aclose=hanging)

    acme.opener = opener
    with pytest.raises(DriverError, match=r"aclose\(\) has not ended for 0\.1 s"):
        async with open_queue(settings):
            pass


async def test_a_driver_that_never_opens_is_given_up(
    settings: Settings, acme: type[AcmeDriver], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening has a limit even if the driver has none."""
    monkeypatch.setattr("streamq.calling._drivers._OPENING_SECONDS", 0.1)

    async def opener(_: ChunkQueue) -> None:
        await asyncio.Event().wait()

    acme.opener = opener
    with pytest.raises(DriverError, match=r"open\(\) has not ended for 0\.1 s"):
        await open_queue(settings)
