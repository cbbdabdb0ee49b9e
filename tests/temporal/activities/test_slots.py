"""Tests what streams take of their worker: nothing of ours waits in a slot that a producer needs.

Places that wait, and how each is checked: ``streamq.forward``, ``streamq.poll``, ``streamq.watch``
and ``streamq.result`` by the full workers of this module, which run every delivery; the slots of
each delivery are counted. Local polls keep their slots, local ones. ``streamq.summary``,
``streamq.sweep``, ``streamq.end_topics``, ``streamq.seal`` and ``streamq.publish`` work, and keep
theirs (``test_waiting.py``). docs/temporal.md has the
table of all; a test compares it.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from temporalio import activity
from temporalio.client import Client, WorkflowHandle
from temporalio.exceptions import ApplicationError
from temporalio.worker import (
    CustomSlotSupplier,
    FixedSizeSlotSupplier,
    ResourceBasedSlotConfig,
    SlotMarkUsedContext,
    SlotPermit,
    SlotReleaseContext,
    SlotReserveContext,
    Worker,
    WorkerTuner,
)
from tests.temporal.support.following_workflows import Continues, Follows, Options, State
from tests.temporal.support.reading import SOON
from tests.temporal.support.receiving_workflows import Gateway

from streamq import Settings, StreamWriter
from streamq.driver import ChunkQueue
from streamq.temporal import StreamqPlugin, StreamRequest, _plugin, streaming_activity

Handle = WorkflowHandle[Any, Any]
Begin = Callable[[Client, str, str], Awaitable[list[Handle]]]
"""Starts one stream of a producer on a task queue; returns the workflows that have to end."""


@streaming_activity
async def fail_once(stream: StreamWriter) -> str:
    await stream.send_chunk("first")
    if activity.info().attempt == 1:
        raise ApplicationError("once", next_retry_delay=SOON)
    await stream.send_chunk("second")
    return "done"


_definition = activity._Definition.must_from_callable


def new_id() -> str:
    return f"wf-{uuid.uuid4().hex}"


def generic(**options: Any) -> Begin:
    async def begin(client: Client, task_queue: str, producer: str) -> list[Handle]:
        handles: list[Handle] = []
        if options.get("delivery") == "signal":
            target = await client.start_workflow("Gateway", id=new_id(), task_queue=task_queue)
            handles.append(target)
            request = StreamRequest(producer, target_workflow_id=target.id, **options)
        else:
            request = StreamRequest(producer, **options)
        handles.append(
            await client.start_workflow(
                "streamq.Stream", request, id=new_id(), task_queue=task_queue
            )
        )
        return handles

    return begin


def follows(**options: Any) -> Begin:
    async def begin(client: Client, task_queue: str, producer: str) -> list[Handle]:
        args = [producer, [], Options(**options)]
        return [
            await client.start_workflow("Follows", args=args, id=new_id(), task_queue=task_queue)
        ]

    return begin


def continues(**options: Any) -> Begin:
    async def begin(client: Client, task_queue: str, producer: str) -> list[Handle]:
        state = State(producer, [], Options(detached=True, continue_every=2, **options))
        return [await client.start_workflow("Continues", state, id=new_id(), task_queue=task_queue)]

    return begin


DELIVERIES: dict[str, Begin] = {
    "none": generic(),
    "poll": generic(delivery="poll"),
    "poll, attached": generic(delivery="poll", detached=False),
    "signal": generic(delivery="signal"),
    "stream_activity": follows(),
    "stream_activity, local": follows(polling="local", window_ms=20),
    "stream_activity, detached": follows(detached=True),
    "resume_stream": continues(),
}

_PAGE = Path(__file__).parents[3] / "docs/temporal.md"
_BEGIN, _END = "<!-- asserted by tests/temporal/activities/test_slots.py -->", "<!-- end -->"


def published() -> dict[str, tuple[int, int, list[str]]]:
    """Return the page's table: slots, local slots and waiting activities by delivery."""
    page = _PAGE.read_text(encoding="utf-8")
    lines = page.split(_BEGIN)[1].split(_END)[0].strip().splitlines()[2:]
    rows = [[cell.strip() for cell in line.replace("`", "").split("|")[1:-1]] for line in lines]
    return {
        name: (int(slots), int(local), [each for each in waiting.split(", ") if each])
        for name, slots, local, waiting in rows
    }


PUBLISHED = published()

RunSlots = Callable[..., Worker]


def activity_of(info: object) -> str:
    return str(getattr(info, "activity_type", None))


class CountingSlots(CustomSlotSupplier):
    """Gives a number of slots, and counts the activities that occupy them."""

    def __init__(self, slots: int) -> None:
        self.used: Counter[str] = Counter()
        self._free = slots
        self._lock = threading.Lock()  # the SDK calls from threads of its own

    async def reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit:
        while (permit := self.try_reserve_slot(ctx)) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # slots are released by other threads
        return permit

    def try_reserve_slot(self, ctx: SlotReserveContext) -> SlotPermit | None:
        with self._lock:
            if not self._free:
                return None
            self._free -= 1
            return SlotPermit()

    def mark_slot_used(self, ctx: SlotMarkUsedContext) -> None:
        with self._lock:
            self.used[activity_of(ctx.slot_info)] += 1

    def release_slot(self, ctx: SlotReleaseContext) -> None:
        with self._lock:
            self._free += 1
            if ctx.slot_info is not None:
                self.used[activity_of(ctx.slot_info)] -= 1


def waiting_activities() -> dict[str, int]:
    """Count the activities that wait outside of slots, by type."""
    names = [each.get_name().partition(" waiting") for each in asyncio.all_tasks()]
    return Counter(kind for kind, is_waiting, _ in names if is_waiting)


def threads_of_activities() -> set[str]:
    """Return the threads of this process without those in which the SDK runs workflows."""
    return {each.name for each in threading.enumerate() if "temporal_workflow" not in each.name}


def resource_based(most: int | None) -> WorkerTuner:
    return WorkerTuner.create_resource_based(
        target_memory_usage=0.5,
        target_cpu_usage=0.5,
        activity_config=ResourceBasedSlotConfig(maximum_slots=most),
    )


async def complete(begin: Begin, client: Client, task_queue: str, *, streams: int) -> None:
    """Run streams at the same time, and wait for all."""
    async with asyncio.timeout(60):
        begun = await asyncio.gather(
            *(begin(client, task_queue, "fail_once") for _ in range(streams))
        )
        results = await asyncio.gather(*(each.result() for handles in begun for each in handles))
    assert all(results)


async def wait_first_chunk(reader: Handle, delivery: str) -> None:
    """Wait until the workflow that reads the stream has its first chunk."""
    if delivery == "none":
        return
    query = {"signal": "told", "poll": "recent", "poll, attached": "recent"}.get(delivery, "seen")
    while not await reader.query(query):  # noqa: ASYNC110
        await asyncio.sleep(0.02)  # a query cannot be waited for


@pytest.fixture
def run_slots(client: Client, queue: ChunkQueue, settings: Settings, task_queue: str) -> RunSlots:
    """Return a function that runs a worker with a number of activity slots, or with a tuner."""

    def run(*activities: Any, **options: Any) -> Worker:
        return Worker(
            client,
            task_queue=task_queue,
            activities=[fail_once, *activities],
            workflows=[Gateway, Follows, Continues],
            plugins=[StreamqPlugin(queue, settings)],
            **options,
        )

    return run


@pytest.mark.parametrize("delivery", DELIVERIES)
@pytest.mark.full
async def test_twenty_streams_complete_on_ten_slots(
    delivery: str, run_slots: RunSlots, client: Client, task_queue: str
) -> None:
    """The retry of a producer gets a slot although more streams are read than there are slots."""
    async with run_slots(max_concurrent_activities=10):
        await complete(DELIVERIES[delivery], client, task_queue, streams=20)


@pytest.mark.full
async def test_all_deliveries_share_four_slots(
    run_slots: RunSlots, client: Client, task_queue: str
) -> None:
    """Streams that are read in different ways do not keep each other from completing."""
    async with run_slots(max_concurrent_activities=4), asyncio.TaskGroup() as group:
        for begin in DELIVERIES.values():
            group.create_task(complete(begin, client, task_queue, streams=2))


@pytest.mark.parametrize("delivery", DELIVERIES)
async def test_two_streams_complete_on_one_slot(
    delivery: str, run_slots: RunSlots, client: Client, task_queue: str
) -> None:
    """With the least that a worker can have, streams are late, but none waits for ever."""
    async with run_slots(max_concurrent_activities=1):
        await complete(DELIVERIES[delivery], client, task_queue, streams=2)


def test_every_delivery_is_published() -> None:
    """A delivery that the page leaves out would be sized by guessing."""
    assert {*DELIVERIES} - {*PUBLISHED} == {"resume_stream"}


def test_every_activity_is_published() -> None:
    """How long each activity of ours may have a slot is stated, of a new one as well."""
    page = _PAGE.read_text(encoding="utf-8")
    table = page.split("| activity | has its slot |")[1].split("\n\n")[0]
    named = {name for line in table.splitlines() for name in line.split("|")[1:2]}
    ours = {f"`{definition.name}`" for definition in map(_definition, _plugin._ACTIVITIES)}
    assert [each for each in ours if not any(each in name for name in named)] == []


@pytest.mark.parametrize("delivery", PUBLISHED)
async def test_streams_take_the_slots_that_are_documented(
    delivery: str, run_slots: RunSlots, client: Client, task_queue: str
) -> None:
    """While two producers run, only they have slots, and readers have their first chunks."""
    may_end, begun = asyncio.Event(), asyncio.Semaphore(0)

    @streaming_activity
    async def hold(stream: StreamWriter) -> str:
        await stream.send_chunk("first")
        begun.release()
        await may_end.wait()
        return "done"

    slots, local_slots = CountingSlots(3), CountingSlots(3)
    tuner = WorkerTuner.create_composite(
        workflow_supplier=FixedSizeSlotSupplier(20),
        activity_supplier=slots,
        local_activity_supplier=local_slots,
        nexus_supplier=FixedSizeSlotSupplier(5),
    )
    producers, readers, waiting = PUBLISHED[delivery]
    wanted = ({"hold": 2 * producers}, {"streamq.poll": 2 * readers} if readers else {})
    threads = threads_of_activities()
    async with run_slots(hold, tuner=tuner), asyncio.timeout(90):
        handles = [await DELIVERIES[delivery](client, task_queue, "hold") for _ in range(2)]
        for _ in handles:
            await begun.acquire()
        for reader, *_ in handles:
            await wait_first_chunk(reader, delivery)
        found: object = None
        while found != (
            *wanted,
            dict.fromkeys(waiting, 2),
        ):  # nothing states that a poll has begun to wait
            await asyncio.sleep(0.02)
            found = (+slots.used, +local_slots.used, waiting_activities())
        assert threads_of_activities() == threads
        may_end.set()
        assert all([await each.result() for mine in handles for each in mine])


@pytest.mark.parametrize(
    ("options", "is_warned"),
    [
        ({"max_concurrent_activities": 1}, True),
        ({"max_concurrent_activities": 2}, False),
        ({"tuner": WorkerTuner.create_fixed(activity_slots=1)}, True),
        ({"tuner": WorkerTuner.create_fixed()}, False),
        ({"tuner": resource_based(1)}, True),
        ({"tuner": resource_based(None)}, False),
        ({}, False),
    ],
)
async def test_worker_says_that_it_has_too_few_slots(
    options: dict[str, Any],
    is_warned: bool,
    run_slots: RunSlots,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """On one slot the chunks reach a workflow when the producer has ended: that is no surprise."""
    with caplog.at_level(logging.WARNING, "streamq.temporal"):
        run_slots(**options)
    assert ("runs 1 activity at a time" in caplog.text) is is_warned
