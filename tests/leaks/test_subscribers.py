"""Subscribers come and go, cancelled anywhere, and the process holds what it held before.

Each one is ``async with subscribe(handle)`` with a queue of its own, as in a web application. A
half of them is cancelled again at every await, as a cancel scope of anyio does. The kit has a check
of the same kind without Temporal, for every driver.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import time
import uuid
from asyncio import FIRST_COMPLETED
from collections import Counter
from collections.abc import Callable, Collection

import pytest
from temporalio.client import Client

from streamq import BackendUnavailableError, Settings, installed_drivers, open_writer
from streamq.temporal import stream_name, subscribe
from streamq.testing._cancellation import count_awaits, interrupt

from .test_leaks import SEED, held, until_none

AT_ONCE = 20
FEW, MANY = 40, 1_000
WAITING_SECONDS = 0.05


@pytest.mark.parametrize("settings", ["memory", "sqlite", "redis"], indirect=True)
async def test_subscribers_leave_nothing(settings: Settings, temporal_address: str) -> None:
    """A server must run for weeks while browser tabs are opened and closed."""
    await come_and_go(settings, temporal_address, FEW)


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize("settings", installed_drivers(), indirect=True)
async def test_a_thousand_subscribers_leave_nothing(
    settings: Settings, temporal_address: str, note: Callable[[str, str], None]
) -> None:
    """What leaks only once in a hundred times ends a server within a day."""
    began = time.monotonic()
    before, after = await come_and_go(settings, temporal_address, MANY)
    seconds = time.monotonic() - began
    note(
        f"{MANY} subscribers on {settings.backend}",
        f"tasks, threads, files before {before}, after {after}, in {seconds:.0f} s",
    )


async def come_and_go(settings: Settings, address: str, count: int) -> tuple[str, str]:
    """Let subscribers come and go; return what was held before and afterwards."""
    dice = random.Random(SEED)
    client = await Client.connect(address)
    handle = await client.start_workflow("Unserved", id=uuid.uuid4().hex, task_queue="none")
    run_id = handle.first_execution_run_id
    assert run_id is not None
    async with open_writer(stream_name(handle.id, run_id), settings=settings) as writer:
        await writer.send_chunk("hello")
        await writer.flush()

        async def follow(arrived: asyncio.Event, seconds: float | None = None) -> None:
            async with subscribe(handle, settings=settings) as events:
                arrived.set()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        async for _ in events:
                            pass

        async def come(latest: int) -> None:
            arrived = asyncio.Event()
            leaving = asyncio.ensure_future(
                interrupt(
                    follow(arrived),
                    latest if latest == sys.maxsize else dice.randint(1, latest),
                    is_late=dice.random() < 0.3,
                    insists=dice.random() < 0.5,
                )
            )
            pair = (leaving, asyncio.ensure_future(arrived.wait()))
            await asyncio.wait(pair, return_when=FIRST_COMPLETED)
            await asyncio.sleep(WAITING_SECONDS)  # nothing tells when a reader waits
            for each in pair:
                each.cancel()
            for end in await asyncio.gather(*pair, return_exceptions=True):
                # A busy server may refuse one, which has to leave nothing, too.
                if isinstance(end, Exception) and not isinstance(end, BackendUnavailableError):
                    raise end

        latest = await count_awaits(follow(asyncio.Event(), seconds=0.2))
        # SQLite keeps the descriptors of closed connections while another one is open to the file,
        # and uses them again: as many as there were at the same time.
        await asyncio.gather(*(come(sys.maxsize) for _ in range(AT_ONCE)))
        before = numbers()
        for _ in range(0, count, AT_ONCE):
            await asyncio.gather(*(come(latest) for _ in range(AT_ONCE)))

        async def left() -> Collection[object]:
            return numbers() - before

        await until_none(left, 15)
        after = numbers()
    await handle.terminate()
    return shown(before), shown(after)


def numbers() -> Counter[str]:
    """Return how many tasks, threads and files this process has."""
    return Counter(each.partition(" ")[0] for each in held())


def shown(found: Counter[str]) -> str:
    return ", ".join(str(found[kind]) for kind in ("task", "thread", "file"))
