"""Writes the histories that tests/temporal/test_histories.py replays: run it as a module.

``python -m tests.temporal.renew_histories [NAME ...]``. Run it only for a new scenario, or after a
change that is meant to break the replay of older histories. All other changes must replay the saved
histories.
"""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from temporalio import activity
from temporalio.client import Client, WorkflowFailureError, WorkflowHandle
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.worker import Worker
from tests.temporal.support.following_workflows import Continues, Follows, Options, State
from tests.temporal.support.receiving_workflows import Gateway, Observer

from streamq import StreamWriter, load_settings
from streamq.devserver import FAST, TemporalDevServer
from streamq.driver import QueueOptions
from streamq.memory import MemoryDriver, MemorySettings
from streamq.temporal import (
    StreamqPlugin,
    StreamRequest,
    SweepRequest,
    stream_name,
    streaming_activity,
)

DIRECTORY = Path(__file__).parent / "histories"
TASK_QUEUE = "histories"

# So that a stream of two seconds crosses runs where Temporal suggests it.
_SERVER = {**FAST, "limit.historyCount.suggestContinueAsNew": "60"}
_PATIENCE_SECONDS = 20.0
_NEXT_RUN = "new_execution_run_id"
_DECIDED = "workflow_task_completed_event_attributes"

# Histories of an earlier version, which this one does not write any more.
_PAST = {"follow-ignored-block", "cron-shared-failure"}

Handle = WorkflowHandle[Any, Any]


@streaming_activity
async def count(chunks: int, stream: StreamWriter) -> str:
    for i in range(chunks):
        await stream.send_chunk(i)
        await asyncio.sleep(0.01)
    return "counted"


@streaming_activity
async def twice(stream: StreamWriter) -> str:
    await stream.send_chunk(b"\xff\x00")
    await stream.send_chunk({"attempt": activity.info().attempt})
    if activity.info().attempt == 1:
        raise ApplicationError("again", next_retry_delay=timedelta(milliseconds=50))
    return "at last"


@streaming_activity
async def fail(stream: StreamWriter) -> None:
    await stream.send_chunk("half")
    raise ApplicationError("broken", type="ModelError", non_retryable=True)


@streaming_activity
async def count_and_fail(chunks: int, stream: StreamWriter) -> None:
    for i in range(chunks):
        await stream.send_chunk(i)
        await asyncio.sleep(0.01)
    raise ApplicationError("broken", type="ModelError", non_retryable=True)


@streaming_activity
async def wait_for_ever(stream: StreamWriter) -> None:
    await stream.send_chunk("working")
    await asyncio.Event().wait()


async def _start(client: Client, workflow: Any, *args: Any) -> Handle:
    return await client.start_workflow(
        workflow, args=args, id=f"wf-{uuid.uuid4().hex[:8]}", task_queue=TASK_QUEUE
    )


def _follows(name: str, *args: Any, **options: Any) -> Callable[[Client], Awaitable[Handle]]:
    return lambda client: _start(client, "Follows", name, list(args), Options(**options))


def _continues(name: str, *args: Any, **options: Any) -> Callable[[Client], Awaitable[Handle]]:
    state = State(name, list(args), Options(detached=True, **options))
    return lambda client: _start(client, "Continues", state)


def _stream(name: str, *args: Any, **options: Any) -> Callable[[Client], Awaitable[Handle]]:
    async def start(client: Client) -> Handle:
        if options.get("delivery") == "signal":
            gateway = await _start(client, "Gateway")
            options["target_workflow_id"] = gateway.id
        return await _start(client, "streamq.Stream", StreamRequest(name, list(args), **options))

    return start


def _reporting(name: str, *args: Any, **options: Any) -> Callable[[Client], Awaitable[Handle]]:
    async def start(client: Client) -> Handle:
        observer = await _start(client, "Observer", 0)
        return await _stream(name, *args, progress_workflow_id=observer.id, **options)(client)

    return start


async def _receive(client: Client) -> Handle:
    gateway = await _start(client, "Gateway")
    request = StreamRequest(
        "count", [100], delivery="signal", target_workflow_id=gateway.id, window_seconds=0.02
    )
    await _start(client, "streamq.Stream", request)
    return gateway


async def _fire(client: Client) -> Handle:
    """Start a cron schedule whose firings fail, and are retried once; terminate the third."""
    handle: Handle = await client.start_workflow(
        "streamq.Stream",
        StreamRequest("twice", [], delivery="poll", max_attempts=1),
        id=f"wf-{uuid.uuid4().hex[:8]}",
        task_queue=TASK_QUEUE,
        cron_schedule="@every 1s",
        retry_policy=RetryPolicy(initial_interval=timedelta(milliseconds=20), maximum_attempts=2),
    )
    run_ids: set[str | None] = set()
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while len(run_ids) < 5:
            run_ids.add((await client.get_workflow_handle(handle.id).describe()).run_id)
            await asyncio.sleep(0.01)  # a new run cannot be waited for
    await client.get_workflow_handle(handle.id).terminate("by design")
    return handle


async def _sweep(client: Client) -> Handle:
    return await _start(client, "streamq.Sweep", SweepRequest(grace_seconds=0))


SCENARIOS: dict[str, Callable[[Client], Awaitable[Handle]]] = {
    "follow-activity": _follows("count", 40),
    "follow-local": _follows("count", 80, polling="local", window_ms=20),
    "follow-detached": _follows("count", 40, detached=True),
    "follow-retry": _follows("twice"),
    "follow-failure": _follows("fail"),
    "follow-break": _follows("wait_for_ever", stop_after=1),
    "follow-cancel": _follows("wait_for_ever"),
    "follow-timeout": _follows("wait_for_ever", start_to_close_seconds=0.3, max_attempts=1),
    # In a block of stream_topic; in the first one the call ignored it.
    "follow-ignored-block": _follows("count", 40, detached=True, block="chosen"),
    "follow-block": _follows("count", 40, detached=True, block="chosen"),
    "continue-activity": _continues("count", 40, continue_every=15),
    "continue-local": _continues("count", 80, continue_every=30, polling="local", window_ms=20),
    "continue-failure": _continues("fail", continue_every=1),
    "stream-none": _stream("count", 10),
    "stream-poll": _stream("count", 40, delivery="poll"),
    "stream-poll-attached": _stream("count", 40, delivery="poll", detached=False),
    "stream-signal": _stream("count", 40, delivery="signal"),
    "stream-cancel": _stream("wait_for_ever", delivery="poll"),
    "sweep": _sweep,
    # Two firings, each with its retry. In the earlier one firings shared a stream.
    "cron-failure": _fire,
    "cron-shared-failure": _fire,
    # Later runs: of the generic workflow,
    "stream-continued": _reporting(
        "count", 150, delivery="poll", window_seconds=0.05, progress_seconds=0.5
    ),
    "stream-continued-failure": _stream(
        "count_and_fail", 100, delivery="poll", window_seconds=0.02
    ),
    "stream-continued-cancel": _stream("count", 100_000, delivery="poll", window_seconds=0.02),
    # of the helper, with polls of both kinds in each,
    "continued-activity": _continues("count", 200, continue_every=80),
    "continued-local": _continues("count", 300, continue_every=120, polling="local", window_ms=20),
    "continued-end": _continues("count", 30, continue_every=15, window_ms=20),
    "continued-cancel": _continues("count", 100_000, continue_every=150, polling="local"),
    "continued-gone": _continues("count", 100_000, continue_every=150, max_wait_seconds=0.5),
    # and of the inbox.
    "receive": _receive,
}


async def _interfere(client: Client, name: str, handle: Handle) -> None:
    """Apply to a workflow the event that a scenario is about."""
    if not name.endswith(("cancel", "gone")):
        return
    if "continued" in name:
        newest = client.get_workflow_handle(handle.id)
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while (await newest.describe()).run_id == handle.first_execution_run_id:  # noqa: ASYNC110
                await asyncio.sleep(0.05)  # a new run cannot be waited for
    await asyncio.sleep(1.0)  # for chunks to be there
    if name.endswith("cancel"):
        await handle.cancel()
    else:
        await _producer(client, handle).terminate("by accident")


def _producer(client: Client, handle: Handle) -> Handle:
    return client.get_workflow_handle(stream_name(handle.id, str(handle.first_execution_run_id)))


async def _write(client: Client, name: str, handle: Handle) -> None:
    run_id: str | None = handle.first_execution_run_id
    number = 0
    while run_id:
        number += 1
        history = await client.get_workflow_handle(handle.id, run_id=run_id).fetch_history()
        if any(event.WhichOneof("attributes") == _DECIDED for event in history.events):
            _save(f"{name}-{number}", history.to_json())
        last = history.events[-1]
        run_id = getattr(getattr(last, str(last.WhichOneof("attributes"))), _NEXT_RUN, None)
    try:
        _save(f"{name}-produce", (await _producer(client, handle).fetch_history()).to_json())
    except Exception:  # noqa: BLE001 - most scenarios have none
        return


def _save(name: str, text: str) -> None:
    data = _without_traces(json.loads(text))
    DIRECTORY.mkdir(exist_ok=True)
    (DIRECTORY / f"{name}.json").write_text(json.dumps(data, separators=(",", ":")) + "\n")


def _without_traces(data: Any) -> Any:
    """Remove stack traces, which have paths of the machine that wrote them."""
    if isinstance(data, dict):
        return {key: _without_traces(value) for key, value in data.items() if key != "stackTrace"}
    return [_without_traces(each) for each in data] if isinstance(data, list) else data


async def renew(names: list[str]) -> None:
    """Run the scenarios on a server of their own and write their histories."""
    options = QueueOptions(ttl=timedelta(minutes=5))
    settings = load_settings(backend="memory", cancel_seconds=0.2)
    with TemporalDevServer(dynamic_config=_SERVER) as server:
        client = await Client.connect(server.address, identity="histories")
        async with (
            await MemoryDriver.open(options, MemorySettings(store=uuid.uuid4().hex)) as queue,
            Worker(
                client,
                task_queue=TASK_QUEUE,
                workflows=[Follows, Continues, Gateway, Observer],
                activities=[count, count_and_fail, twice, fail, wait_for_ever],
                plugins=[StreamqPlugin(queue, settings)],
            ),
        ):
            for name in names or SCENARIOS.keys() - _PAST:
                handle = await SCENARIOS[name](client)
                await _interfere(client, name, handle)
                try:
                    await handle.result()
                except WorkflowFailureError as exc:
                    if not name.endswith(("cancel", "failure", "gone")):
                        raise SystemExit(f"{name}: {exc.cause}") from exc
                await _write(client, name, handle)


if __name__ == "__main__":
    asyncio.run(renew(sys.argv[1:]))
