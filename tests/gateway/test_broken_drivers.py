"""A gateway over a driver that breaks the contract: clients get an error, in time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.core.broken_driver import AcmeQueue, Defect, altering, listing, raising, returning

from streamq import DriverError, Settings, open_writer
from streamq.driver import StreamId, StreamInfo

from .served import Serve, WatchedQueue


@pytest.mark.parametrize(
    ("path", "defects"),
    [
        ("/streams", {"streams": listing(StreamInfo(StreamId("another", "secret")))}),
        ("/streams", {"streams": returning(None)}),
        ("/streams/s", {"describe": returning(None)}),
        ("/streams/s", {"describe": raising(KeyError("k"))}),
        ("/streams/s/events", {"describe": raising(OSError("o"))}),
        ("/readyz", {"describe": raising(asyncio.CancelledError())}),
    ],
    ids=["foreign tenant", "no listing", "None", "KeyError", "events", "readyz"],
)
async def test_a_request_ends_with_the_code_of_the_defect(
    start: Serve, queue: WatchedQueue, path: str, defects: dict[str, Defect]
) -> None:
    """What is wrong with the driver is for the log; another tenant's names are for nobody."""
    served = await start(AcmeQueue(queue, **defects))
    async with asyncio.timeout(10):
        answer = await served.get(path)
    assert answer.status_code == 500
    assert answer.json()["error"] == "driver"
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    "defect",
    [returning(None), raising(KeyError("k")), altering("read", lambda found: found[::-1])],
    ids=["None", "KeyError", "backwards"],
)
async def test_a_listener_is_told_when_reading_fails(
    start: Serve, queue: WatchedQueue, settings: Settings, defect: Defect
) -> None:
    """A connection that stays open in silence looks like a model that thinks."""
    async with open_writer("s", queue=queue, settings=settings) as writer:
        for value in ("a", "b"):
            await writer.send_chunk(value)
            await writer.flush()
    served = await start(AcmeQueue(queue, read=defect))
    async with asyncio.timeout(10):
        events = await served.collect("s")
    last: dict[str, Any] = events[-1].json()
    assert events[-1].event == "error"
    assert (last["error"], last["retryable"]) == ("driver", False)


async def test_a_queue_that_cannot_be_used_keeps_the_gateway_from_starting(
    start: Serve, queue: WatchedQueue
) -> None:
    """The application gave it, and learns it before the first client comes."""
    broken = AcmeQueue(queue)
    del broken.capabilities
    with pytest.raises(DriverError, match="capabilities is None, not Capabilities"):
        await start(broken)
